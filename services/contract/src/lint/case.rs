//! How names are written. Pure.

fn is_between(letter: char) -> bool {
    matches!(letter, '.' | '-' | '_' | ' ' | '\t' | '\n' | '\r')
}

/// `like_this` or `Like_This`: words are told apart by capitals and by what stands between them; letters stay as they are.
fn snake(name: &str) -> String {
    let letters: Vec<char> = name.trim_matches(is_between).chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (index, &letter) in letters.iter().enumerate() {
        let letter = if is_between(letter) { '_' } else { letter };
        let before = index.checked_sub(1).and_then(|index| letters.get(index)).copied();
        let Some(before) = before else {
            snake.push(letter);
            continue;
        };
        // A capital begins a word after a small letter, and before one: the S of HTTPServer.
        let goes_on = letters
            .get(index + 1)
            .is_some_and(|next| !next.is_uppercase() && !next.is_ascii_digit() && !is_between(*next));
        let is_new = letter.is_uppercase() && !snake.ends_with('_') && (goes_on || before.is_lowercase());
        if is_new {
            snake.push('_');
        }
        if !(letter == '_' && snake.ends_with('_')) {
            snake.push(letter);
        }
    }
    snake
}

/// `like_this`.
pub(super) fn lower_snake(name: &str) -> String {
    snake(name).to_lowercase()
}

/// `LIKE_THIS`.
pub(super) fn upper_snake(name: &str) -> String {
    snake(name).to_uppercase()
}

/// `LikeThis`; capitals stay.
pub(super) fn pascal(name: &str) -> String {
    let mut pascal = String::with_capacity(name.len());
    let mut before = '_';
    for letter in name.trim().chars() {
        if !is_between(letter) {
            if is_between(before) || letter.is_uppercase() {
                pascal.extend(letter.to_uppercase());
            } else {
                pascal.extend(letter.to_lowercase());
            }
        }
        before = letter;
    }
    pascal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_they_should_be() {
        for (name, lower, upper_camel) in [
            ("HTTPServer", "http_server", "HTTPServer"),
            ("foo_bar", "foo_bar", "FooBar"),
            ("fooBar2", "foo_bar2", "FooBar2"),
            ("foo__bar_", "foo_bar", "FooBar"),
            ("Foo2Bar", "foo2_bar", "Foo2Bar"),
        ] {
            assert_eq!((lower_snake(name).as_str(), pascal(name).as_str()), (lower, upper_camel), "{name}");
        }
    }
}
