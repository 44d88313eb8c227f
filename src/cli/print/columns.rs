//! Aligned columns.

use std::fmt::Write;

/// Where a column's cells stand.
#[derive(Clone, Copy)]
pub(in crate::cli) enum Align {
    Left,
    Right,
}

/// Cells in columns, two spaces between, none at the end of a line.
pub(in crate::cli) fn columns<const N: usize>(rows: &[[String; N]], align: [Align; N]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            let width = widths[i];
            match align[i] {
                Align::Left => put(&mut line, format_args!("{cell:<width$}  ")),
                Align::Right => put(&mut line, format_args!("{cell:>width$}  ")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Adds to `text`.
pub(super) fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = text.write_fmt(what);
}
