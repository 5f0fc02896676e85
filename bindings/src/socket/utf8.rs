//! UTF-8 checked as it comes: a bad byte is found with the piece that has it, not at the end of its message.

/// A check of one text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    /// The bytes of a letter whose rest has not come.
    held: [u8; 3],
    length: usize,
}

impl Utf8 {
    /// Takes more of the text; false if it is not UTF-8.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> bool {
        while self.length > 0 {
            let Some((next, rest)) = bytes.split_first() else { return true };
            let mut letter = [0; 4];
            letter[..self.length].copy_from_slice(&self.held[..self.length]);
            letter[self.length] = *next;
            bytes = rest;
            match std::str::from_utf8(&letter[..=self.length]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_none() && self.length < self.held.len() => {
                    self.held[self.length] = *next;
                    self.length += 1;
                }
                Err(_) => return false,
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                let rest = &bytes[error.valid_up_to()..];
                self.length = rest.len().min(self.held.len());
                self.held[..self.length].copy_from_slice(&rest[..self.length]);
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the text may end here.
    pub(super) fn is_whole(self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pieces: &[&[u8]]) -> bool {
        let mut utf8 = Utf8::default();
        pieces.iter().all(|piece| utf8.push(piece)) && utf8.is_whole()
    }

    #[test]
    fn a_bad_byte_is_found_before_the_text_ends() {
        let mut utf8 = Utf8::default();
        assert!(utf8.push("κόσμε".as_bytes()));
        assert!(utf8.push(b"\xed"), "may still become a letter");
        assert!(!utf8.push(b"\xa0"), "half of a surrogate pair");
        let mut utf8 = Utf8::default();
        assert!(utf8.push(b"\xf4") && !utf8.push(b"\x90"), "beyond the last letter");
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library_however_it_is_cut(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..12),
                ".{0,8}".prop_map(String::into_bytes),
            ],
            cuts in proptest::collection::vec(0usize..12, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(check(&pieces), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
