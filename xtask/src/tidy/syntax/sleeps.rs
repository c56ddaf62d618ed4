//! Tests that sleep are slow on a fast machine and wrong on a slow one, so each says why it must.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::Expr;

/// Opens the comment, on the same line or just above, that explains why a test sleeps.
pub(super) const MARK: &str = "may sleep:";
/// How far above a sleep its explanation may begin.
const LINES_ABOVE: usize = 3;
const NAMES: [&str; 2] = ["sleep", "sleep_until"];

/// Whether an explanation stands beside or right above a line (counted from one).
pub(super) fn is_explained(lines: &[&str], line: usize) -> bool {
    let first = line.saturating_sub(LINES_ABOVE + 1);
    let near = lines.iter().take(line).skip(first);
    near.into_iter().any(|line| line.contains(MARK))
}

pub(super) fn is_sleep(function: &Expr) -> bool {
    let Expr::Path(path) = function else {
        return false;
    };
    let last = path.path.segments.last();
    last.is_some_and(|segment| NAMES.iter().any(|name| segment.ident == name))
}

/// Calls of sleep inside a macro's arguments, which are not parsed as expressions.
pub(super) fn in_tokens(tokens: TokenStream) -> Vec<Span> {
    let mut found = Vec::new();
    let mut named = None;
    for token in tokens {
        match token {
            TokenTree::Ident(word) => {
                named = NAMES.iter().any(|name| word == name).then(|| word.span());
                continue;
            }
            TokenTree::Group(group) => {
                found.extend(named);
                found.extend(in_tokens(group.stream()));
            }
            _ => {}
        }
        named = None;
    }
    found
}
