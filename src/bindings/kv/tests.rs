//! What requests say, apart from the store.

use super::*;

fn refused<T: std::fmt::Debug>(result: Result<T, Refused>) -> (u16, String) {
    match result.unwrap_err() {
        Refused::Status(status, reason) => (status.as_u16(), reason),
        Refused::Broken => panic!("broken"),
    }
}

#[test]
fn expiry_is_a_time_that_is_far_enough() {
    let at = |query: &str| expiry(&Query::parse(query), 1_000);
    assert_eq!(at("").unwrap(), None);
    assert_eq!(at("expiration_ttl=60").unwrap(), Some(1_060));
    assert_eq!(at("expiration=1060").unwrap(), Some(1_060));
    assert_eq!(at("expiration=1&expiration_ttl=90").unwrap(), Some(1_090));
    for (query, part) in [
        ("expiration_ttl=59", "Expiration TTL must be at least 60."),
        ("expiration_ttl=0", "Please specify integer greater than 0."),
        ("expiration_ttl=-5", "Please specify integer greater than 0."),
        ("expiration_ttl=x", "Please specify integer greater than 0."),
        ("expiration=1000", "greater than the current number of seconds"),
        ("expiration=1059", "at least 60 seconds in the future."),
        ("expiration=-1", "greater than the current number of seconds"),
    ] {
        let (status, reason) = refused(at(query));
        assert!(status == 400 && reason.contains(part), "{query}: {status} {reason}");
    }
    assert_eq!(at("expiration_ttl=9223372036854775807").unwrap(), Some(1_000 + 9_223_372_036_854_775_807));
}

#[test]
fn paths_name_keys() {
    for (path, name) in
        [("/a", "a"), ("/a%2Fb", "a/b"), ("/%25", "%"), ("/%C3%A4", "ä"), ("/bulk%2Fget", "bulk/get")]
    {
        assert_eq!(key(path).unwrap(), Key::parse(name).unwrap(), "{path}");
    }
    for (path, status) in
        [("/%", 400), ("/%f", 400), ("/%ff", 400), ("/%zz", 400), ("/.", 400), ("/%2e%2e", 400)]
    {
        assert_eq!(refused(key(path)).0, status, "{path}");
    }
    assert_eq!(refused(key(&format!("/{}", "x".repeat(513)))).0, 414);
}

#[test]
fn lists_say_what_they_want() {
    let of = |query: &str| Query::parse(query).list_options();
    let all = of("").unwrap();
    assert_eq!((all.limit, all.prefix.len(), all.after), (1_000, 0, None));
    let some = of("key_count_limit=10&prefix=a%26b&cursor=YQ").unwrap();
    assert_eq!((some.limit, &some.prefix[..], some.after.as_deref()), (10, &b"a&b"[..], Some(&b"a"[..])));
    assert_eq!(of("cursor=").unwrap().after, None);
    for (query, status, part) in [
        ("key_count_limit=0", 400, "greater than 0."),
        ("key_count_limit=x", 400, "greater than 0."),
        ("key_count_limit=1001", 400, "less than 1000."),
        ("cursor=!", 400, "Invalid cursor."),
    ] {
        let (got, reason) = refused(of(query));
        assert!(got == status && reason.contains(part), "{query}: {got} {reason}");
    }
    assert_eq!(refused(of(&format!("prefix={}", "x".repeat(513)))).0, 414);
    assert_eq!(refused(of(&format!("cursor={}", BASE64.encode([7; 513])))).0, 400);
}
