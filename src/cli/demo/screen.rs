//! Standard output, for a person: headings, lines, and on a terminal one live line.

use std::fmt::Display;
use std::io::{self, IsTerminal, Stdout, Write};

use super::DemoError;

/// To the first column, and the rest of the line erased (ECMA-48 EL).
const REWRITE: &str = "\r\x1b[K";
const INDENT: &str = "  ";

/// Where the story is told. Silent for `--json`, whose figures are all that standard output gets.
#[derive(Debug)]
pub(super) struct Screen {
    out: Option<Stdout>,
    live: bool,
}

impl Screen {
    /// A screen on standard output, or a silent one.
    pub(super) fn new(silent: bool) -> Self {
        let out = io::stdout();
        Self {
            live: !silent && out.is_terminal(),
            out: (!silent).then_some(out),
        }
    }

    /// A heading, with an empty line before it.
    ///
    /// # Errors
    /// Standard output is closed; so with all the others.
    pub(super) fn heading(&mut self, text: impl Display) -> Result<(), DemoError> {
        self.put(format_args!("\n{text}\n"))
    }

    /// Indented lines of text.
    pub(super) fn lines(&mut self, text: impl Display) -> Result<(), DemoError> {
        self.put(indented(&text.to_string()))
    }

    /// The live line, in place of the one before; nothing where output is no terminal.
    pub(super) fn live(&mut self, text: impl Display) -> Result<(), DemoError> {
        if self.live {
            self.put(format_args!("{REWRITE}{INDENT}{text}"))
        } else {
            Ok(())
        }
    }

    /// Lines that stay, in place of the live one if there is one.
    pub(super) fn settle(&mut self, text: impl Display) -> Result<(), DemoError> {
        if self.live {
            self.put(REWRITE)?;
        }
        self.lines(text)
    }

    fn put(&mut self, text: impl Display) -> Result<(), DemoError> {
        let Some(out) = &mut self.out else {
            return Ok(());
        };
        write!(out, "{text}")
            .and_then(|()| out.flush())
            .map_err(DemoError::Output)
    }
}

/// Each line one step to the right; empty ones stay empty.
pub(super) fn indented(text: &str) -> String {
    let indent = |line: &str| {
        if line.is_empty() {
            "\n".to_owned()
        } else {
            format!("{INDENT}{line}\n")
        }
    };
    text.lines().map(indent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indenting_keeps_empty_lines_empty_and_ends_the_last() {
        assert_eq!(indented("a\n\n  b"), "  a\n\n    b\n");
        assert_eq!(indented(""), "");
    }

    #[test]
    fn a_silent_screen_takes_everything() {
        let mut screen = Screen::new(true);
        assert!(
            screen
                .heading("a")
                .and_then(|()| screen.live("b"))
                .and_then(|()| screen.settle("c"))
                .is_ok()
        );
    }
}
