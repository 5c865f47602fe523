//! A command line in one string → its words, by the quoting rules of a POSIX shell and nothing
//! else of it: no variables, no globs, no pipes. Compose reads `command: "…"` like this.

/// Splits a command line.
///
/// # Errors
/// If a quote is not closed or the text ends in a backslash.
pub(super) fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a single quote is not closed"),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err("a backslash is the last character"),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), &'static str> {
    const OPEN: &str = "a double quote is not closed";
    loop {
        match chars.next().ok_or(OPEN)? {
            '"' => return Ok(()),
            '\\' => match chars.next().ok_or(OPEN)? {
                c @ ('"' | '\\' | '$' | '`') => word.push(c),
                '\n' => {}
                c => {
                    word.push('\\');
                    word.push(c);
                }
            },
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_split_as_a_shell_splits_them() {
        for (text, expected) in [
            ("a  b\tc", &["a", "b", "c"][..]),
            ("nginx -g 'daemon off;'", &["nginx", "-g", "daemon off;"]),
            (r#"sh -c "echo \"$PORT\"""#, &["sh", "-c", "echo \"$PORT\""]),
            (r"a\ b", &["a b"]),
            (r#"--save """#, &["--save", ""]),
            (r#"x'y'"z""#, &["xyz"]),
            ("", &[]),
        ] {
            assert_eq!(split(text).expect(text), expected, "{text}");
        }
        for text in ["'", "\"", "a\\", "\"a\\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn prop_garbage_never_panics(text in ".{0,60}") {
            let _ = split(&text);
        }
    }
}
