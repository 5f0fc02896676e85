//! AWS Signature Version 4: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.
//!
//! The request that is dialled is the canonical one itself: path and query are rewritten before they are signed, so that the
//! server cannot read them in another way than the signature does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;
use zeroize::Zeroizing;

/// Everything but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const SECONDS_PER_DAY: u64 = 86_400;

/// Whose signature, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigV4 {
    /// The public half of the key pair.
    pub access_key_id: String,
    /// Such as `eu-central-1`.
    pub region: String,
    /// Such as `s3`.
    pub service: String,
}

/// What the signature sets.
pub(super) struct Signed {
    pub(super) authorization: String,
    /// The signature alone, to be searched for in answers.
    pub(super) signature: String,
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// SHA-256 in hexadecimal.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// `20150830T123600Z`.
pub(super) fn amz_date(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, rest) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
    let (year, month, day) = civil(days);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Days since 1970-01-01 as a date of the Gregorian calendar, by eras of 400 years that begin on the first of March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

fn encode(text: &str) -> String {
    let plain = percent_decode_str(text).decode_utf8_lossy();
    utf8_percent_encode(&plain, ENCODED).to_string()
}

/// Path and query in the one spelling that is signed.
pub(super) fn canonicalize(url: &mut Url) {
    let path: Vec<String> = url.path().split('/').map(encode).collect();
    url.set_path(&path.join("/"));
    let Some(query) = url.query() else { return };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        // A form's space; a real plus is written `%2B`.
        .map(|(name, value)| (encode(&name.replace('+', "%20")), encode(&value.replace('+', "%20"))))
        .collect();
    pairs.sort_unstable();
    let query: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    url.set_query(Some(&query.join("&")));
}

impl SigV4 {
    /// Signs a request whose URL was canonicalized. `headers` are those that are signed: names in lower case, sorted.
    pub(super) fn sign(
        &self,
        secret: &str,
        method: &str,
        url: &Url,
        headers: &[(&str, &str)],
        payload_sha256: &str,
        date: &str,
    ) -> Signed {
        // S3 signs the path as it is sent; every other service encodes it once more.
        let path = if self.service == "s3" {
            url.path().to_owned()
        } else {
            let twice = |segment: &str| utf8_percent_encode(segment, ENCODED).to_string();
            url.path().split('/').map(twice).collect::<Vec<_>>().join("/")
        };
        let lines: String =
            headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let query = url.query().unwrap_or_default();
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload_sha256}");
        let day = &date[..8];
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
        let mut key = Zeroizing::new(format!("AWS4{secret}").into_bytes());
        for part in [day, &self.region, &self.service, "aws4_request", &to_sign] {
            key = Zeroizing::new(hmac::sign(&Key::new(HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec());
        }
        let signature = hex(&key);
        let credential = format!("{}/{scope}", self.access_key_id);
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}");
        Signed { authorization, signature }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of AWS's own documentation.
    #[test]
    fn the_documented_example_has_the_documented_signature() {
        let mut url = Url::parse("https://iam.amazonaws.com/?Version=2010-05-08&Action=ListUsers").unwrap();
        canonicalize(&mut url);
        assert_eq!(url.query(), Some("Action=ListUsers&Version=2010-05-08"));
        let signer =
            SigV4 { access_key_id: "AKIDEXAMPLE".into(), region: "us-east-1".into(), service: "iam".into() };
        let headers = [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
        ];
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let signed = signer.sign(secret, "GET", &url, &headers, &sha256_hex(b""), "20150830T123600Z");
        assert_eq!(signed.signature, "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7");
    }

    #[test]
    fn dates_and_spellings() {
        let at = |seconds| amz_date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(1_440_938_160), "20150830T123600Z");
        assert_eq!(at(1_709_210_096), "20240229T123456Z");
        let mut url = Url::parse("https://a.example/x%7ey/a b?b=%7e&a=1+2&a").unwrap();
        canonicalize(&mut url);
        assert_eq!(url.as_str(), "https://a.example/x~y/a%20b?a=&a=1%202&b=~");
    }
}
