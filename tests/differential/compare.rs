//! Comparing two answers.

use std::collections::BTreeSet;

use super::Part;
use crate::support::client::{Answer, ClientError};

/// Headers that belong to the connection or name the server, not to what the program said.
const HEADERS_OF_THE_SERVER: &[&str] =
    &["date", "server", "connection", "keep-alive", "transfer-encoding", "content-length", "alt-svc"];
/// Longest excerpt in a message, in characters.
const EXCERPT_CHARACTERS_MAX: usize = 300;

/// What a row of the table excused: its number, and the label of a report line (empty for the other parts).
pub(crate) type Excused = (usize, &'static str);

/// The rows that may excuse differences of one answer, and those that did.
pub(crate) struct Excuses<'a> {
    pub(crate) rows: Vec<(usize, &'static Part)>,
    pub(crate) used: &'a mut BTreeSet<Excused>,
}

impl Excuses<'_> {
    /// Whether a row allows this part to differ, as it does.
    fn part(&mut self, part: &Part) -> bool {
        let Some((row, _)) = self.rows.iter().find(|(_, each)| *each == part) else { return false };
        self.used.insert((*row, ""));
        true
    }

    /// Whether a row allows the report line with this label to differ, as it does.
    fn line(&mut self, label: &str) -> bool {
        for (row, part) in &self.rows {
            let Part::Lines(labels) = part else { continue };
            if let Some(known) = labels.iter().find(|each| **each == label) {
                self.used.insert((*row, known));
                return true;
            }
        }
        false
    }
}

/// Everything that differs, each as a readable message.
pub(crate) fn differences(
    wanted: &Answer,
    got: Result<Answer, ClientError>,
    excuses: &mut Excuses<'_>,
) -> Vec<String> {
    let got = match got {
        Ok(got) => got,
        Err(error) => return vec![format!("no answer from Atoll: {error}")],
    };
    let mut out = vec![];
    let same_reason = wanted.reason == got.reason || excuses.part(&Part::Reason);
    if wanted.status != got.status || !same_reason {
        out.push(format!(
            "status: workerd {} {:?}, Atoll {} {:?} ({})",
            wanted.status,
            wanted.reason,
            got.status,
            got.reason,
            excerpt(&got.text())
        ));
        if got.status >= 500 {
            return out; // the rest would only repeat that it failed
        }
    }
    let (wanted_headers, got_headers) = (own_headers(wanted), own_headers(&got));
    let own_page = wanted.status >= 500 && (wanted.body != got.body || wanted_headers != got_headers);
    if own_page && excuses.part(&Part::Body) {
        return out;
    }
    if wanted_headers != got_headers {
        out.push(format!("headers:\n  workerd {wanted_headers:?}\n  Atoll   {got_headers:?}"));
    }
    if wanted.body != got.body {
        out.extend(body_differences(&wanted.text(), &got.text(), excuses));
    }
    out
}

fn body_differences(wanted: &str, got: &str, excuses: &mut Excuses<'_>) -> Vec<String> {
    let (wanted_lines, got_lines): (Vec<&str>, Vec<&str>) = (wanted.lines().collect(), got.lines().collect());
    if wanted_lines.len() != got_lines.len() || wanted_lines.len() < 2 {
        return vec![format!("body:\n  workerd {}\n  Atoll   {}", excerpt(wanted), excerpt(got))];
    }
    let mut may_differ = |line: &str| excuses.line(line.split(": ").next().unwrap_or_default());
    wanted_lines
        .iter()
        .zip(&got_lines)
        .filter(|(wanted, got)| wanted != got && !may_differ(wanted))
        .map(|(wanted, got)| format!("line:\n  workerd {}\n  Atoll   {}", excerpt(wanted), excerpt(got)))
        .collect()
}

/// Headers the program is responsible for, sorted by name. Repeated fields mean the same as one combined field
/// (RFC 9110 §5.3), except `set-cookie`.
fn own_headers(answer: &Answer) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = vec![];
    for (name, value) in &answer.headers {
        if HEADERS_OF_THE_SERVER.contains(&name.as_str()) {
            continue;
        }
        let value = value.escape_ascii().to_string();
        match headers.iter_mut().find(|(have, _)| have == name && name != "set-cookie") {
            Some((_, combined)) => {
                combined.push_str(", ");
                combined.push_str(&value);
            }
            None => headers.push((name.clone(), value)),
        }
    }
    headers.sort_by(|left, right| left.0.cmp(&right.0));
    headers
}

/// An answer for a person.
pub(super) fn print(answer: &Answer) -> String {
    format!("{} {} {:?}\n{}", answer.status, answer.reason, own_headers(answer), cut(&answer.text(), 4_000))
}

fn excerpt(text: &str) -> String {
    format!("{:?}", cut(text, EXCERPT_CHARACTERS_MAX))
}

fn cut(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
