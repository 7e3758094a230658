//! Reads a query into its parts.
//!
//! By climbing precedences: `or`, then `and` and `unless`, comparisons, sums, products, signs, powers; a range, `offset`, `@`,
//! `anchored` and `smoothed` belong to what stands right before them. After Pratt, "Top Down Operator Precedence" (1973).

use super::functions;
use super::lex::{Token, lex, place};
use super::{
    At, Binary, Call, Edges, Expr, Fold, Grouping, Length, Many, Matcher, Range, Selector, Sign, Subquery, When, check,
};
use crate::error::Error;
use crate::labels::NAME;

/// How deep parts may lie within each other, so that no query exhausts the stack.
const DEPTH_MAX: usize = 200;

const POWER: u8 = 6;

/// Reads and checks a query.
///
/// # Errors
/// [`Error::Syntax`], [`Error::Type`], [`Error::Argument`] with what does not fit, and where.
pub(crate) fn read(text: &str) -> Result<Expr, Error> {
    let mut reader = Reader { text, tokens: lex(text)?, at: 0, depth: 0 };
    let expr = reader.expr(0)?;
    if let Some(token) = reader.peek() {
        return Err(reader.wrong(&format!("{token} has no meaning here")));
    }
    check::check(&expr)?;
    Ok(expr)
}

/// Tokens on their way to parts.
struct Reader<'t> {
    text: &'t str,
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
}

/// An operator and how strongly it binds.
fn operator(token: &Token) -> Option<(&'static str, u8)> {
    const SIGNS: [(&str, u8); 14] = [
        ("==", 2),
        ("!=", 2),
        (">=", 2),
        ("<=", 2),
        (">", 2),
        ("<", 2),
        (">/", 2),
        ("</", 2),
        ("+", 3),
        ("-", 3),
        ("*", 4),
        ("/", 4),
        ("%", 4),
        ("^", POWER),
    ];
    const WORDS: [(&str, u8); 4] = [("or", 0), ("and", 1), ("unless", 1), ("atan2", 4)];
    match token {
        Token::Sign(sign) => SIGNS.into_iter().find(|(other, _)| other == sign),
        Token::Word(word) => WORDS.into_iter().find(|(other, _)| other.eq_ignore_ascii_case(word)),
        _ => None,
    }
}

impl Reader<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn peek_after(&self) -> Option<&Token> {
        self.tokens.get(self.at + 1).map(|(_, token)| token)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn wrong(&self, what: &str) -> Error {
        let at = self.tokens.get(self.at).map_or(self.text.len(), |(at, _)| *at);
        Error::Syntax(format!("{}: {what}", place(self.text, at)))
    }

    fn found(&self) -> String {
        self.peek().map_or("nothing".to_owned(), ToString::to_string)
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(Token::Sign(other)) if *other == sign)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(other)) if other.eq_ignore_ascii_case(word))
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is_there = self.is_sign(sign);
        self.at += usize::from(is_there);
        is_there
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_there = self.is_word(word);
        self.at += usize::from(is_there);
        is_there
    }

    fn wants(&mut self, sign: &str) -> Result<(), Error> {
        if self.takes(sign) { Ok(()) } else { Err(self.wrong(&format!("wanted {sign:?}, found {}", self.found()))) }
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.wrong(&format!("parts lie more than {DEPTH_MAX} deep in each other")));
        }
        let made = read(self);
        self.depth -= 1;
        made
    }

    fn expr(&mut self, least: u8) -> Result<Expr, Error> {
        self.deeper(|reader| {
            let mut left = reader.signed()?;
            while let Some((op, binds)) = reader.peek().and_then(operator).filter(|(_, binds)| *binds >= least) {
                reader.at += 1;
                let mut binary = reader.modifiers(op)?;
                // Powers are taken from the right, all others from the left.
                binary.right = reader.expr(if op == "^" { binds } else { binds + 1 })?;
                binary.left = left;
                left = Expr::Binary(Box::new(binary));
            }
            Ok(left)
        })
    }

    fn signed(&mut self) -> Result<Expr, Error> {
        if self.takes("-") {
            let of = self.expr(POWER)?;
            return Ok(match of {
                Expr::Number(value) => Expr::Number(-value),
                of => Expr::Negative(Box::new(of)),
            });
        }
        if self.takes("+") {
            return Ok(Expr::Positive(Box::new(self.expr(POWER)?)));
        }
        let mut expr = self.primary()?;
        while let Some(after) = self.behind(&mut expr)? {
            expr = after;
        }
        Ok(expr)
    }

    /// What stands behind an operator: `bool`, which labels match, which side may have many, what fills gaps.
    fn modifiers(&mut self, op: &'static str) -> Result<Binary, Error> {
        let nothing = Expr::Number(0.0);
        let mut binary = Binary {
            op,
            left: nothing.clone(),
            right: nothing,
            is_bool: self.takes_word("bool"),
            matching: None,
            many: Many::Neither,
            extra: Vec::new(),
            fill: [None, None],
        };
        if self.takes_word("on") {
            binary.matching = Some(Grouping::Only(self.labels()?));
        } else if self.takes_word("ignoring") {
            binary.matching = Some(Grouping::Without(self.labels()?));
        }
        if binary.matching.is_some() {
            let many = if self.takes_word("group_left") {
                Many::Left
            } else if self.takes_word("group_right") {
                Many::Right
            } else {
                Many::Neither
            };
            binary.many = many;
            if many != Many::Neither && self.is_sign("(") {
                binary.extra = self.labels()?;
            }
        }
        while matches!(self.peek_after(), Some(Token::Sign("("))) {
            let sides: &[usize] = if self.is_word("fill") {
                &[0, 1]
            } else if self.is_word("fill_left") {
                &[0]
            } else if self.is_word("fill_right") {
                &[1]
            } else {
                break;
            };
            self.at += 2;
            let is_negative = self.takes("-");
            let Some(Token::Number(value) | Token::Duration(value)) = self.next() else {
                self.at -= 1;
                return Err(self.wrong("wanted a number to fill gaps with"));
            };
            self.wants(")")?;
            sides.iter().for_each(|side| binary.fill[*side] = Some(if is_negative { -value } else { value }));
        }
        Ok(binary)
    }

    /// Names of labels in parentheses.
    fn labels(&mut self) -> Result<Vec<String>, Error> {
        self.wants("(")?;
        let mut all = Vec::new();
        while !self.takes(")") {
            match self.next() {
                Some(Token::Word(name) | Token::Text(name)) if !name.is_empty() => all.push(name),
                _ => {
                    self.at -= 1;
                    return Err(self.wrong(&format!("wanted the name of a label, found {}", self.found())));
                }
            }
            if !self.is_sign(")") {
                self.wants(",")?;
            }
        }
        Ok(all)
    }

    fn primary(&mut self) -> Result<Expr, Error> {
        match self.peek().cloned() {
            Some(Token::Number(value) | Token::Duration(value)) => {
                self.at += 1;
                Ok(Expr::Number(value))
            }
            Some(Token::Text(text)) => {
                self.at += 1;
                Ok(Expr::Text(text))
            }
            Some(Token::Sign("(")) => {
                self.at += 1;
                let inner = self.expr(0)?;
                self.wants(")")?;
                Ok(Expr::Paren(Box::new(inner)))
            }
            Some(Token::Sign("{")) => self.selector(None),
            Some(Token::Word(word)) => self.word(&word),
            Some(_) | None => Err(self.wrong(&format!("wanted something to look at, found {}", self.found()))),
        }
    }

    /// A function, an aggregation or the name of a metric.
    fn word(&mut self, word: &str) -> Result<Expr, Error> {
        let opens = matches!(self.peek_after(), Some(Token::Sign("(")));
        let groups = matches!(self.peek_after(), Some(Token::Word(next)) if is_grouping(next));
        if let Some((name, param)) = functions::fold(word).filter(|_| opens || groups) {
            self.at += 1;
            return self.fold(name, param.is_some());
        }
        if opens {
            let Some(function) = functions::function(word) else {
                return Err(self.wrong(&format!("no function has the name {word:?}")));
            };
            self.at += 2;
            let args = self.arguments()?;
            return Ok(Expr::Call(Call { name: function.name, args }));
        }
        if ["bool", "on", "ignoring", "group_left", "group_right"].iter().any(|own| own.eq_ignore_ascii_case(word)) {
            return Err(self.wrong(&format!("{word:?} stands only behind an operator")));
        }
        self.at += 1;
        self.selector(Some(word.to_owned()))
    }

    /// Arguments until the parenthesis closes.
    fn arguments(&mut self) -> Result<Vec<Expr>, Error> {
        let mut all = Vec::new();
        while !self.takes(")") {
            all.push(self.expr(0)?);
            if self.is_sign(",") {
                self.at += 1;
                if self.is_sign(")") {
                    return Err(self.wrong("a trailing comma stands not after an argument"));
                }
            } else if !self.is_sign(")") {
                return Err(self.wrong(&format!("wanted \",\" or \")\", found {}", self.found())));
            }
        }
        Ok(all)
    }

    fn fold(&mut self, name: &'static str, has_param: bool) -> Result<Expr, Error> {
        let mut grouping = self.grouping()?;
        self.wants("(")?;
        let mut args = self.arguments()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let wanted = 1 + usize::from(has_param);
        let many = args.len();
        let Some(of) = args.pop().filter(|_| many == wanted) else {
            return Err(self.wrong(&format!("{name} takes {wanted} arguments, and was given {many}")));
        };
        Ok(Expr::Fold(Box::new(Fold { name, param: args.pop(), of, grouping })))
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, Error> {
        if self.takes_word("by") {
            return self.labels().map(|labels| Some(Grouping::Only(labels)));
        }
        if self.takes_word("without") {
            return self.labels().map(|labels| Some(Grouping::Without(labels)));
        }
        Ok(None)
    }

    fn selector(&mut self, name: Option<String>) -> Result<Expr, Error> {
        let mut selector = Selector { name, ..Selector::default() };
        if self.takes("{") {
            while !self.takes("}") {
                self.matcher(&mut selector)?;
                if !self.is_sign("}") {
                    self.wants(",")?;
                }
            }
        }
        Ok(Expr::Selector(selector))
    }

    fn matcher(&mut self, into: &mut Selector) -> Result<(), Error> {
        let (name, is_text) = match self.next() {
            Some(Token::Word(name)) => (name, false),
            Some(Token::Text(name)) => (name, true),
            _ => {
                self.at -= 1;
                return Err(self.wrong(&format!("wanted the name of a label, found {}", self.found())));
            }
        };
        let sign = match self.peek() {
            Some(Token::Sign("=")) => Sign::Equal,
            Some(Token::Sign("!=")) => Sign::NotEqual,
            Some(Token::Sign("=~")) => Sign::Like,
            Some(Token::Sign("!~")) => Sign::NotLike,
            _ if is_text => return self.named(name, into),
            _ => return Err(self.wrong(&format!("wanted =, !=, =~ or !~, found {}", self.found()))),
        };
        self.at += 1;
        let Some(Token::Text(value)) = self.next() else {
            self.at -= 1;
            return Err(self.wrong(&format!("wanted a text, found {}", self.found())));
        };
        if name == NAME && sign == Sign::Equal && into.name.is_some() {
            return self.named(value, into);
        }
        into.matchers.push(Matcher::new(name, sign, value)?);
        Ok(())
    }

    fn named(&self, name: String, into: &mut Selector) -> Result<(), Error> {
        if let Some(before) = &into.name {
            return Err(self.wrong(&format!("the name of the metric is told twice: {before:?} and {name:?}")));
        }
        into.name = Some(name);
        Ok(())
    }

    /// What stands behind a part and belongs to it. `None` when nothing more does.
    fn behind(&mut self, expr: &mut Expr) -> Result<Option<Expr>, Error> {
        if self.takes("[") {
            return self.bracket(std::mem::replace(expr, Expr::Number(0.0))).map(Some);
        }
        let is_offset = self.is_word("offset");
        if !is_offset && !self.is_sign("@") && !self.is_word("anchored") && !self.is_word("smoothed") {
            return Ok(None);
        }
        let (when, edges) = match expr {
            Expr::Selector(selector) => (&mut selector.when, Some(&mut selector.edges)),
            Expr::Range(range) => (&mut range.selector.when, Some(&mut range.selector.edges)),
            Expr::Subquery(sub) => (&mut sub.when, None),
            _ => {
                let what = format!("{} stands only behind a selector, its range or a subquery", self.found());
                return Err(self.wrong(&what));
            }
        };
        if is_offset || self.is_sign("@") {
            self.moved(when)?;
        } else {
            let wanted = if self.is_word("anchored") { Edges::Anchored } else { Edges::Smoothed };
            match edges {
                Some(edges) if *edges == Edges::Open || *edges == wanted => *edges = wanted,
                Some(_) => return Err(self.wrong("anchored and smoothed stand not together")),
                None => return Err(self.wrong("a subquery is neither anchored nor smoothed")),
            }
            self.at += 1;
        }
        Ok(Some(std::mem::replace(expr, Expr::Number(0.0))))
    }

    fn moved(&mut self, when: &mut When) -> Result<(), Error> {
        if self.takes("@") {
            if when.at.is_some() {
                return Err(self.wrong("@ stands twice"));
            }
            when.at = Some(self.time()?);
            return Ok(());
        }
        self.at += 1;
        if when.offset.is_some() {
            return Err(self.wrong("offset stands twice"));
        }
        // Without parentheses only one number, or one function, with its sign belongs to it.
        when.offset = Some(self.length_signed()?);
        Ok(())
    }

    fn time(&mut self) -> Result<At, Error> {
        for (word, at) in [("start", At::Start), ("end", At::End)] {
            if self.takes_word(word) {
                self.wants("(")?;
                self.wants(")")?;
                return Ok(at);
            }
        }
        let is_negative = self.takes("-");
        if !is_negative {
            self.takes("+");
        }
        match self.next() {
            Some(Token::Number(seconds) | Token::Duration(seconds)) if (seconds * 1000.0).abs() < 9.2e18 => {
                #[expect(clippy::cast_possible_truncation, reason = "within bounds")]
                let millis = (seconds * 1000.0).round() as i64;
                Ok(At::Time(if is_negative { -millis } else { millis }))
            }
            _ => {
                self.at -= 1;
                Err(self.wrong(&format!("wanted a time in seconds, start() or end(), found {}", self.found())))
            }
        }
    }

    fn bracket(&mut self, of: Expr) -> Result<Expr, Error> {
        let length = self.length(0)?;
        if self.takes(":") {
            let step = if self.is_sign("]") { None } else { Some(self.length(0)?) };
            self.wants("]")?;
            return Ok(Expr::Subquery(Box::new(Subquery { of, length, step, when: When::default() })));
        }
        self.wants("]")?;
        match of {
            Expr::Selector(selector) if selector.when == When::default() && selector.edges == Edges::Open => {
                Ok(Expr::Range(Range { selector, length }))
            }
            Expr::Selector(_) => Err(self.wrong("a range stands before offset, @, anchored and smoothed")),
            _ => Err(self.wrong("a range stands only behind a selector: write [5m:1m] for a subquery")),
        }
    }

    fn length(&mut self, least: u8) -> Result<Length, Error> {
        self.deeper(|reader| {
            let mut left = if reader.takes("-") {
                Length::Negative(Box::new(reader.length(POWER)?))
            } else {
                reader.length_signed()?
            };
            while let Some((op, binds)) = reader.peek().and_then(operator).filter(|(_, binds)| *binds >= least.max(3)) {
                if op == "atan2" {
                    break;
                }
                reader.at += 1;
                let right = reader.length(if op == "^" { binds } else { binds + 1 })?;
                if matches!(op, "/" | "%") && matches!(right, Length::Seconds(seconds, _) if seconds == 0.0) {
                    return Err(reader.wrong("a duration is divided by zero"));
                }
                left = Length::Made(op, Box::new([left, right]));
            }
            Ok(left)
        })
    }

    fn length_signed(&mut self) -> Result<Length, Error> {
        if self.takes("-") {
            return Ok(match self.deeper(Self::length_signed)? {
                Length::Seconds(seconds, is_written) if !is_written => Length::Seconds(-seconds, false),
                length => Length::Negative(Box::new(length)),
            });
        }
        if self.takes("+") {
            return self.deeper(Self::length_signed);
        }
        match self.next() {
            Some(Token::Number(seconds)) => Ok(Length::Seconds(seconds, false)),
            Some(Token::Duration(seconds)) => Ok(Length::Seconds(seconds, true)),
            Some(Token::Sign("(")) => {
                let inner = self.length(0)?;
                self.wants(")")?;
                Ok(Length::Paren(Box::new(inner)))
            }
            Some(Token::Word(word)) => self.length_function(&word.to_ascii_lowercase()),
            _ => {
                self.at -= 1;
                Err(self.wrong(&format!("wanted a duration such as 5m, found {}", self.found())))
            }
        }
    }

    fn length_function(&mut self, word: &str) -> Result<Length, Error> {
        let name = match word {
            "step" | "range" => {
                self.wants("(")?;
                self.wants(")")?;
                return Ok(if word == "step" { Length::Step } else { Length::Range });
            }
            "min_of" => "min_of",
            "max_of" => "max_of",
            _ => {
                self.at -= 1;
                return Err(self.wrong(&format!("wanted a duration such as 5m, found {}", self.found())));
            }
        };
        self.wants("(")?;
        let left = self.length(0)?;
        self.wants(",")?;
        let right = self.length(0)?;
        self.wants(")")?;
        Ok(Length::Of(name, Box::new([left, right])))
    }
}

fn is_grouping(word: &str) -> bool {
    word.eq_ignore_ascii_case("by") || word.eq_ignore_ascii_case("without")
}
