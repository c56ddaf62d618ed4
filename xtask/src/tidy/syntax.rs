//! Rules that need the code parsed: how long functions are, how things are named, whether exceptions give a reason.

mod names;
mod sleeps;

use anyhow::Result;
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, ExprCall, ImplItemFn, ItemFn, ItemMod, Macro, Meta, Signature, TraitItemFn,
};

use super::finding::Finding;
use super::source::Source;
use crate::workspace::Workspace;

/// A function that fills more than two screens holds more than one idea.
const FUNCTION_LINES_MAX: usize = 100;
/// Macros that stand for work not done, or left over from looking for a fault.
const UNFINISHED_MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// Attributes that switch something off, and therefore say why.
const EXCEPTIONS: [&str; 2] = ["expect", "allow"];

pub(super) fn check(_: &Workspace, sources: &[Source]) -> Result<Vec<Finding>> {
    let rust = sources.iter().filter(|source| source.is_rust());
    Ok(rust.flat_map(of_file).collect())
}

fn of_file(source: &Source) -> Vec<Finding> {
    let Some(text) = &source.text else {
        return vec![Finding::about(&source.path, "Rust source is UTF-8")];
    };
    let file = match syn::parse_file(text) {
        Ok(file) => file,
        Err(error) => {
            let line = error.span().start().line;
            return vec![Finding::at(
                &source.path,
                line,
                format!("cannot be parsed: {error}"),
            )];
        }
    };
    let mut visitor = Visitor::new(source, text);
    visitor.module_docs(&file.attrs);
    visitor.visit_file(&file);
    visitor.findings
}

struct Visitor<'a> {
    source: &'a Source,
    lines: Vec<&'a str>,
    /// Whether the code being visited only runs under `cargo test`.
    in_test: bool,
    findings: Vec<Finding>,
}

impl<'a> Visitor<'a> {
    fn new(source: &'a Source, text: &'a str) -> Self {
        Self {
            source,
            lines: text.lines().collect(),
            in_test: source.is_test(),
            findings: Vec::new(),
        }
    }

    fn report(&mut self, span: Span, message: impl Into<String>) {
        let line = span.start().line;
        self.findings
            .push(Finding::at(&self.source.path, line, message));
    }

    /// Every file opens with a sentence that says what it is for.
    fn module_docs(&mut self, attributes: &[Attribute]) {
        let documented = attributes
            .iter()
            .any(|attribute| attribute.path().is_ident("doc"));
        if !documented && !self.source.is_test() {
            let message = "open the file with `//!` and one plain sentence";
            self.findings
                .push(Finding::about(&self.source.path, message));
        }
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        let lines = block.span().end().line + 1 - signature.span().start().line;
        if lines > FUNCTION_LINES_MAX {
            let name = &signature.ident;
            let message =
                format!("fn {name} has {lines} lines: split it ({FUNCTION_LINES_MAX} at most)");
            self.report(signature.span(), message);
        }
        self.name("fn", &signature.ident.to_string(), signature.ident.span());
    }

    fn name(&mut self, kind: &str, name: &str, span: Span) {
        if names::ends_in_a_number(name) {
            let message = format!("{kind} {name} ends in a number: say what makes it different");
            self.report(span, message);
        }
    }

    fn within_test(&mut self, test: bool, visit: impl FnOnce(&mut Self)) {
        let outer = self.in_test;
        self.in_test |= test;
        visit(self);
        self.in_test = outer;
    }

    fn sleep(&mut self, span: Span) {
        let line = span.start().line;
        if self.in_test && !sleeps::is_explained(&self.lines, line) {
            let message = format!(
                "tests wait for an event, or say why not: `{} …`",
                sleeps::MARK
            );
            self.report(span, message);
        }
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.function(&item.sig, &item.block);
        let test = is_test_function(&item.attrs);
        self.within_test(test, |visitor| visit::visit_item_fn(visitor, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.name("mod", &item.ident.to_string(), item.ident.span());
        let test = is_test_module(&item.attrs);
        self.within_test(test, |visitor| visit::visit_item_mod(visitor, item));
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let is = |name: &str| attribute.path().is_ident(name);
        let gives_reason = match &attribute.meta {
            Meta::List(list) => list.tokens.to_string().contains("reason"),
            Meta::NameValue(_) => true,
            _ => false,
        };
        if EXCEPTIONS.into_iter().any(is) && !gives_reason {
            self.report(
                attribute.span(),
                "an exception gives its reason: `reason = \"…\"`",
            );
        }
        if is("ignore") && !gives_reason {
            self.report(
                attribute.span(),
                "an ignored test says why: `#[ignore = \"…\"]`",
            );
        }
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        if let Some(name) = UNFINISHED_MACROS
            .iter()
            .find(|name| call.path.is_ident(name))
        {
            self.report(call.path.span(), format!("{name}! is no finished work"));
        }
        for span in sleeps::in_tokens(call.tokens.clone()) {
            self.sleep(span);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        if sleeps::is_sleep(&call.func) {
            self.sleep(call.func.span());
        }
        visit::visit_expr_call(self, call);
    }
}

/// `#[test]`, `#[tokio::test]` and their like.
fn is_test_function(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let last = attribute.path().segments.last();
        last.is_some_and(|segment| segment.ident == "test")
    })
}

fn is_test_module(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        let source = Source {
            path: path.into(),
            bytes: text.len() as u64,
            text: Some(text.into()),
        };
        of_file(&source).iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn check(path: &str, text: &str, expected: &[&str]) {
        let found = messages(path, text);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found} lacks {expected}");
        }
    }

    #[test]
    fn files_open_with_a_sentence() {
        check("src/a.rs", "fn f() {}\n", &["open the file"]);
        check("src/a.rs", "//! Something.\nfn f() {}\n", &[]);
        check("tests/runner/a.rs", "fn f() {}\n", &[]);
    }

    #[test]
    fn long_functions_are_found_wherever_they_stand() {
        let body = "    let _ = 1;\n".repeat(FUNCTION_LINES_MAX);
        let free = format!("//! A.\nfn f() {{\n{body}}}\n");
        let method = format!("//! A.\nimpl A {{\nfn f() {{\n{body}}}\n}}\n");
        let default = format!("//! A.\ntrait A {{\nfn f() {{\n{body}}}\n}}\n");
        for text in [free, method, default] {
            check("src/a.rs", &text, &["has 102 lines"]);
        }
        let shorter = "    let _ = 1;\n".repeat(FUNCTION_LINES_MAX - 2);
        check(
            "src/a.rs",
            &format!("//! A.\nfn f() {{\n{shorter}}}\n"),
            &[],
        );
    }

    #[test]
    fn numbered_names_are_found() {
        check(
            "src/a.rs",
            "//! A.\nmod parser2 {}\nfn f_1() {}\n",
            &["mod parser2", "fn f_1"],
        );
    }

    #[test]
    fn exceptions_without_a_reason_are_found() {
        check(
            "src/a.rs",
            "//! A.\n#[expect(dead_code)]\nfn f() {}\n",
            &["reason"],
        );
        check(
            "src/a.rs",
            "//! A.\n#[expect(dead_code, reason = \"x\")]\nfn f() {}\n",
            &[],
        );
        check(
            "src/a.rs",
            "//! A.\n#[ignore]\nfn f() {}\n",
            &["ignored test"],
        );
        check("src/a.rs", "//! A.\n#[ignore = \"x\"]\nfn f() {}\n", &[]);
    }

    #[test]
    fn unfinished_macros_are_found() {
        let name = UNFINISHED_MACROS[0];
        check(
            "src/a.rs",
            &format!("//! A.\nfn f() {{ {name}!() }}\n"),
            &["no finished work"],
        );
    }

    #[test]
    fn sleeping_is_for_the_living_code_only() {
        let call = "fn f() { thread::sleep(ONE) }\n";
        check("src/a.rs", &format!("//! A.\n{call}"), &[]);
        check("tests/runner/a.rs", call, &["wait for an event"]);
        check(
            "src/a.rs",
            &format!("//! A.\n#[cfg(test)]\nmod tests {{\n{call}}}\n"),
            &["wait"],
        );
        check(
            "src/a.rs",
            &format!("//! A.\n#[tokio::test]\nasync {call}"),
            &["wait"],
        );
        let explained = format!(
            "fn f() {{\n// {} the clock must move.\nsleep(ONE);\n}}\n",
            sleeps::MARK
        );
        check("tests/runner/a.rs", &explained, &[]);
        check(
            "tests/runner/a.rs",
            "fn f() { select! { _ = sleep(ONE) => {} } }\n",
            &["wait"],
        );
    }
}
