//! The search for the canary itself: it finds what is planted, and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::support::canary::{CANARY, Search, assert_clean, bytes_of, find, forms};
use crate::support::client::Answer;

#[test]
fn a_planted_canary_is_found_in_every_form_and_place() {
    let mut planted = forms(CANARY);
    planted.push(CANARY.to_uppercase().into_bytes());
    // Among other things, in every alignment, without its ends.
    for before in 0..7 {
        let text = format!("{}{CANARY}{}", "ä".repeat(before), "z".repeat(before * 2));
        planted.push(STANDARD_NO_PAD.encode(&text).into_bytes());
        planted.push(URL_SAFE_NO_PAD.encode(&text).into_bytes());
        planted.push(text.into_bytes());
    }
    planted.push(CANARY.as_bytes()[4..CANARY.len() - 5].to_vec());
    for form in &planted {
        for (before, after) in [(0, 0), (1, 0), (0, 1), (5_000, 70_000)] {
            let all = [&vec![0xff; before][..], form, &vec![b'\n'; after]].concat();
            let (at, _) = find(&all).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(form)));
            assert!((before..before + form.len()).contains(&at));
            assert!(std::panic::catch_unwind(|| assert_clean(&all, "planted")).is_err());
        }
    }
}

#[test]
fn it_is_found_across_pieces() {
    for form in forms(CANARY) {
        let all = [&[b'x'; 300][..], &form, &[b'y'; 300]].concat();
        for size in [1, 7, 64, 299] {
            let searched = || {
                all.chunks(size).fold(Search::default(), |mut search, piece| {
                    search.push(piece, "planted");
                    search
                })
            };
            assert!(
                std::panic::catch_unwind(searched).is_err(),
                "{size}: {}",
                String::from_utf8_lossy(&form)
            );
        }
    }
    let mut search = Search::default();
    [b'x'; 100_000].chunks(7).for_each(|piece| search.push(piece, "clean"));
}

#[test]
fn it_is_looked_for_in_every_part_of_an_answer() {
    let clean = Answer { status: 200, reason: "OK".into(), headers: vec![], body: "fine".into() };
    assert_clean(&bytes_of(&clean), "a clean answer");
    let header = |name: &str, value: &str| vec![(name.to_owned(), value.as_bytes().to_vec())];
    for dirty in [
        Answer { reason: CANARY.into(), ..clean.clone() },
        Answer { headers: header("x-a", CANARY), ..clean.clone() },
        Answer { headers: header(CANARY, "x"), ..clean.clone() },
        Answer { body: format!("a{CANARY}b").into(), ..clean.clone() },
    ] {
        assert!(find(&bytes_of(&dirty)).is_some(), "{dirty:?}");
    }
}

#[test]
fn what_only_looks_like_it_is_no_finding() {
    let ends = format!("{} {}", &CANARY[..12], &CANARY[14..]);
    for clean in ["", "ghp_/", "Canary", "0123456789", &CANARY[..20], &ends, &"*".repeat(CANARY.len())] {
        assert_clean(clean.as_bytes(), clean);
    }
}
