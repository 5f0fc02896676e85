//! Globs of module rules: `*` and `?` within a segment, `**` across segments, `{a,b}` as alternatives.

/// Most alternatives that the braces of one pattern may stand for.
const ALTERNATIVES_MAX: usize = 256;

/// Whether a `/`-separated path matches a pattern. A pattern with too many alternatives matches nothing.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    let path: Vec<&str> = path.split('/').collect();
    let matches_one = |pattern: &String| {
        let pattern: Vec<&str> = pattern.split('/').collect();
        segments_match(&pattern, &path)
    };
    expand(pattern).iter().any(matches_one)
}

fn expand(pattern: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut open = vec![pattern.to_owned()];
    while let Some(pattern) = open.pop() {
        if done.len() + open.len() > ALTERNATIVES_MAX {
            return Vec::new();
        }
        // The innermost braces first: the last `{` and the first `}` after it.
        let braces =
            pattern.rfind('{').and_then(|begin| pattern[begin..].find('}').map(|len| (begin, begin + len)));
        match braces {
            None => done.push(pattern),
            Some((begin, end)) => {
                let (head, tail) = (&pattern[..begin], &pattern[end + 1..]);
                open.extend(
                    pattern[begin + 1..end]
                        .split(',')
                        .take(ALTERNATIVES_MAX)
                        .map(|part| format!("{head}{part}{tail}")),
                );
            }
        }
    }
    done
}

/// Greedy matching with one point to come back to, so the time is at most the product of the lengths.
fn segments_match(pattern: &[&str], path: &[&str]) -> bool {
    let (mut p, mut s, mut back) = (0, 0, None);
    while s < path.len() {
        if pattern.get(p) == Some(&"**") {
            back = Some((p, s));
            p += 1;
        } else if pattern.get(p).is_some_and(|segment| segment_matches(segment, path[s])) {
            p += 1;
            s += 1;
        } else if let Some((star, from)) = back {
            back = Some((star, from + 1));
            p = star + 1;
            s = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|segment| *segment == "**")
}

fn segment_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut back) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                back = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    p = star + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_like_a_shell() {
        for (pattern, path, want) in [
            ("**/*.txt", "a.txt", true),
            ("**/*.txt", "a/b/c.txt", true),
            ("*.txt", "a/b.txt", false),
            ("./lib/*.js", "lib/a.js", true),
            ("lib/**", "lib/a/b", true),
            ("lib/**/x", "lib/x", true),
            ("lib/**/x", "lib/a/b/x", true),
            ("lib/**/x", "lib/a/b/y", false),
            ("**/*.wasm?module", "a.wasm?module", true),
            ("a?c", "abc", true),
            ("*.{md,txt}", "x.txt", true),
            ("*.{md,{txt,html}}", "x.html", true),
            ("*.{md,txt}", "x.js", false),
            ("**", "a/b", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, path), want, "{pattern} {path}");
        }
    }

    #[test]
    fn hostile_patterns_end() {
        let text = "a".repeat(300);
        assert!(!matches(&format!("{}b", "*a".repeat(100)), &text));
        assert!(!matches(&"{a,b}".repeat(100), "a"));
        assert!(!matches(&format!("{}b", "**/a/".repeat(50)), &"a/".repeat(300)));
    }
}
