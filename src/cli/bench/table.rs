//! The results for people: one table a wire.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::dataplane::Dataplane;
use super::results::Results;
use super::summary::{Ratio, Row, Summary};
use super::wire::Wire;

const VOID_MARK: &str = "*";

/// The tables of all wires, and below them what is to be known about them.
pub(super) fn text(results: &Results, notes: &[String]) -> String {
    let rows = results.rows();
    let mut text = String::new();
    for wire in Wire::ALL {
        let of_wire: Vec<_> = rows.iter().filter(|row| row.wire == wire).collect();
        if !of_wire.is_empty() {
            // Writing to a String cannot fail; so below.
            let _ = writeln!(text, "\nwire `{}`: {}\n", wire.name(), wire.description());
            text.push_str(&table(&of_wire));
        }
    }
    text.push('\n');
    for note in notes {
        let _ = writeln!(text, "- {note}");
    }
    text
}

fn table(rows: &[&Row]) -> String {
    aligned(&lines(rows))
}

/// The head and a line for each row, as cells.
pub(super) fn lines(rows: &[&Row]) -> Vec<Vec<String>> {
    let dataplanes: BTreeSet<_> = rows
        .iter()
        .flat_map(|row| row.summaries.keys().copied())
        .collect();
    let columns = columns(&dataplanes);
    let mut head = ["", "unit", "better"].map(str::to_owned).to_vec();
    head.extend(columns.iter().map(|column| column.head().to_owned()));
    let mut lines = vec![head];
    lines.extend(rows.iter().map(|row| line(row, &columns)));
    lines
}

/// What stands under one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Summary(Dataplane),
    Ratio(Dataplane),
}

/// A column for each dataplane, and after each that can be compared with the kernel its ratio.
fn columns(dataplanes: &BTreeSet<Dataplane>) -> Vec<Column> {
    let compared = dataplanes.contains(&Dataplane::Kernel);
    let mut columns = Vec::new();
    for &dataplane in dataplanes {
        columns.push(Column::Summary(dataplane));
        if compared && dataplane != Dataplane::Kernel {
            columns.push(Column::Ratio(dataplane));
        }
    }
    columns
}

impl Column {
    fn head(self) -> &'static str {
        match self {
            Self::Summary(dataplane) => dataplane.name(),
            Self::Ratio(_) => "ratio",
        }
    }

    /// `None` if there is no such figure.
    fn cell(self, row: &Row) -> Option<String> {
        match self {
            Self::Summary(dataplane) => row.summaries.get(&dataplane).map(cell),
            Self::Ratio(dataplane) => row.ratio(dataplane).map(ratio_cell),
        }
    }
}

fn line(row: &Row, columns: &[Column]) -> Vec<String> {
    let mut cells = vec![row.measure.label()];
    cells.extend([row.measure.unit(), row.measure.better().word()].map(str::to_owned));
    let cell = |column: &Column| column.cell(row).unwrap_or_else(|| "-".to_owned());
    cells.extend(columns.iter().map(cell));
    cells
}

/// `9.81 (9.60-10.1)`; marked if it does not count, and with how many do if not all.
fn cell(summary: &Summary) -> String {
    let Summary {
        median,
        min,
        max,
        valid,
        taken,
        void,
    } = *summary;
    let mut cell = number(median);
    if min < max {
        let _ = write!(cell, " ({}-{})", number(min), number(max));
    }
    if void {
        cell.push_str(VOID_MARK);
    } else if valid < taken {
        let _ = write!(cell, " {valid}/{taken}");
    }
    cell
}

fn ratio_cell(ratio: Ratio) -> String {
    let mark = if ratio.void { VOID_MARK } else { "" };
    format!("{}{mark}", number(ratio.value))
}

/// Three digits that count.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        0.1.. => format!("{value:.3}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.4}"),
    }
}

/// Columns as wide as their widest cell, two spaces apart.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        lines
            .iter()
            .filter_map(|line: &Vec<String>| line.get(column))
            .map(String::len)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let pad = |line: &Vec<String>| {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(pad).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [157.3, 15.31, 9.806, 0.1349, 0.0].map(number);
        assert_eq!(shown, ["157", "15.3", "9.81", "0.135", "0"]);
    }

    #[test]
    fn each_but_the_kernel_has_its_ratio_beside_it() {
        use Dataplane::{Kernel, Ovs, SilkVtep};
        let heads = |dataplanes: &[Dataplane]| {
            let columns = columns(&dataplanes.iter().copied().collect());
            columns.into_iter().map(Column::head).collect::<Vec<_>>()
        };
        assert_eq!(
            heads(&[SilkVtep, Ovs, Kernel]),
            ["kernel", "silk-vtep", "ratio", "ovs", "ratio"]
        );
        assert_eq!(heads(&[SilkVtep, Ovs]), ["silk-vtep", "ovs"]);
    }

    #[test]
    fn columns_are_aligned_and_lines_not_padded() {
        let lines = [["a", "bbb"], ["cc", ""]].map(|line| line.map(str::to_owned).to_vec());
        assert_eq!(aligned(&lines), "  a   bbb\n  cc\n");
    }

    #[test]
    fn a_figure_tells_its_range_and_how_much_of_it_counts() {
        let whole = Summary {
            median: 9.806,
            min: 9.6,
            max: 10.12,
            valid: 3,
            taken: 3,
            void: false,
        };
        assert_eq!(cell(&whole), "9.81 (9.60-10.1)");
        assert_eq!(cell(&Summary { valid: 2, ..whole }), "9.81 (9.60-10.1) 2/3");
        assert_eq!(
            cell(&Summary {
                valid: 0,
                void: true,
                ..whole
            }),
            "9.81 (9.60-10.1)*"
        );
        assert_eq!(
            cell(&Summary {
                min: 9.806,
                max: 9.806,
                ..whole
            }),
            "9.81"
        );
    }
}
