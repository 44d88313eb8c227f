//! The results as one page that needs nothing else: figures, plots, the machine, and what to know about them.

use std::fmt::{Display, Write};

use super::dataplane::Dataplane;
use super::exercise::PAYLOADS_BYTES;
use super::machine::Machine;
use super::measure::Measure;
use super::plot::{self, Group, Scale};
use super::results::Results;
use super::summary::Row;
use super::table;
use super::wire::Wire;
use crate::cli::args::VtepSetting;

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1180px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em; margin-bottom: .2em }
h2 { margin-top: 2em; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .15em 1em .15em 0; border-bottom: 1px solid #eee }
th { font-weight: 600 }
.plots { display: flex; flex-wrap: wrap; gap: 1em }
figure { margin: 0 }
figcaption { font-weight: 600 }
.key { display: inline-block; width: .9em; height: .9em; margin: 0 .3em 0 1em; vertical-align: -.1em }
";

/// The page.
///
/// # Errors
/// If a plot cannot be drawn.
pub(super) fn page(
    machine: &Machine,
    settings: &[VtepSetting],
    dataplanes: &[Dataplane],
    results: &Results,
    notes: &[String],
) -> Result<String, String> {
    let mut page = String::new();
    // Writing to a String cannot fail; so below.
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>silk-vtep bench</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>silk-vtep bench</h1>\n"
    );
    let _ = write!(
        page,
        "<p>Two cells with a container each, carried by{}.</p>\n{}{}",
        keys(dataplanes),
        set(settings),
        list(notes)
    );
    let _ = write!(page, "<h2>The machine</h2>\n{}", machine_table(machine));
    let rows = results.rows();
    for wire in Wire::ALL {
        let rows: Vec<_> = rows.iter().filter(|row| row.wire == wire).collect();
        if rows.is_empty() {
            continue;
        }
        let (name, description) = (wire.name(), wire.description());
        let _ = write!(
            page,
            "<h2>Wire <code>{name}</code>: {description}</h2>\n<p>{}</p>\n<div class=\"plots\">\n",
            legend(dataplanes, &rows)
        );
        page.push_str(&plots(wire, dataplanes, results, &rows)?);
        let _ = write!(page, "</div>\n{}", figures_table(&rows));
    }
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

fn keys(dataplanes: &[Dataplane]) -> String {
    let key = |dataplane: &Dataplane| {
        let (color, name) = (plot::css_color(*dataplane), dataplane.name());
        format!("<span class=\"key\" style=\"background: {color}\"></span>{name}")
    };
    dataplanes.iter().map(key).collect()
}

/// What colours stand for, and that some figures are pale.
fn legend(dataplanes: &[Dataplane], rows: &[&Row]) -> String {
    let pale = match rows.iter().any(|row| row.is_void()) {
        true => "; pale: no sample counts",
        false => "",
    };
    format!("{}{pale}", keys(dataplanes))
}

fn set(settings: &[VtepSetting]) -> String {
    if settings.is_empty() {
        return String::new();
    }
    let shown = escaped(super::shown(settings));
    format!("<p>silk-vtep with <code>{shown}</code>.</p>\n")
}

fn list(notes: &[String]) -> String {
    let items: String = notes
        .iter()
        .map(|note| format!("<li>{}</li>\n", escaped(note)))
        .collect();
    format!("<ul>\n{items}</ul>\n")
}

fn machine_table(machine: &Machine) -> String {
    let yes = |yes| if yes { "yes" } else { "no" };
    let rows = [
        ("CPU", format!("{} x {}", machine.cpus, machine.cpu)),
        ("virtual machine", yes(machine.virtual_machine).to_owned()),
        ("memory", format!("{} MiB", machine.memory_mib)),
        ("kernel", format!("Linux {}", machine.kernel)),
        ("clock source", machine.clocksource.clone()),
        ("load at the start", machine.load.clone()),
        ("silk-vtep", machine.version.to_owned()),
        ("optimized build", yes(machine.optimized).to_owned()),
    ];
    let row = |(name, value): (&str, String)| {
        format!("<tr><th>{name}</th><td>{}</td></tr>\n", escaped(value))
    };
    format!(
        "<table>\n{}</table>\n",
        rows.into_iter().map(row).collect::<String>()
    )
}

/// A title, and which measures are of that kind.
type Kind = (&'static str, Scale, fn(Measure) -> bool);

/// All plots of one wire.
fn plots(
    wire: Wire,
    dataplanes: &[Dataplane],
    results: &Results,
    rows: &[&Row],
) -> Result<String, String> {
    let mut figures = String::new();
    let kinds: [Kind; 6] = [
        ("TCP", Scale::Linear, |measure| {
            matches!(measure, Measure::TcpRate(..))
        }),
        ("CPU time for TCP", Scale::Linear, |measure| {
            matches!(measure, Measure::TcpCpu(..))
        }),
        ("UDP, zero loss", Scale::Linear, |measure| {
            matches!(measure, Measure::UdpZeroLoss(_))
        }),
        ("UDP, saturated", Scale::Linear, |measure| {
            matches!(measure, Measure::UdpSaturated(_))
        }),
        ("CPU time for UDP at half load", Scale::Linear, |measure| {
            matches!(measure, Measure::UdpCpu(_))
        }),
        ("UDP round trips", Scale::Log, |measure| {
            matches!(measure, Measure::RoundTrip(..))
        }),
    ];
    for bytes in PAYLOADS_BYTES {
        let curve = |dataplane: &Dataplane| (*dataplane, results.curve(wire, bytes, *dataplane));
        let curves: Vec<_> = dataplanes.iter().map(curve).collect();
        if curves.iter().all(|(_, points)| points.is_empty()) {
            continue;
        }
        figures.push_str(&figure(
            &format!("UDP, {bytes} bytes: delivered over offered"),
            &plot::curves(&curves)?,
        ));
    }
    for (title, scale, is_of) in kinds {
        let of_kind: Vec<_> = rows.iter().filter(|row| is_of(row.measure)).collect();
        let Some(first) = of_kind.first() else {
            continue;
        };
        let groups: Vec<_> = of_kind.iter().map(|row| group(row)).collect();
        figures.push_str(&figure(
            title,
            &plot::groups(&groups, first.measure.unit(), scale)?,
        ));
    }
    Ok(figures)
}

fn group(row: &Row) -> Group {
    Group {
        label: row.measure.short(),
        figures: row
            .summaries
            .iter()
            .map(|(dataplane, summary)| (*dataplane, *summary))
            .collect(),
    }
}

fn figure(title: &str, svg: &str) -> String {
    format!(
        "<figure><figcaption>{}</figcaption>\n{svg}</figure>\n",
        escaped(title)
    )
}

fn figures_table(rows: &[&Row]) -> String {
    let line = |cells: Vec<String>, tag: &str| {
        let cells: String = cells
            .iter()
            .map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)))
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let mut lines = table::lines(rows).into_iter();
    let head = lines
        .next()
        .map(|cells| line(cells, "th"))
        .unwrap_or_default();
    let body: String = lines.map(|cells| line(cells, "td")).collect();
    format!("<table>\n{head}{body}</table>\n")
}

/// What stands for itself in HTML text.
fn escaped(text: impl Display) -> String {
    text.to_string()
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::curve::{Limit, Trials, ZeroLoss};
    use crate::cli::bench::exercise::{Findings, Reading};
    use crate::cli::bench::measure::{Beside, Percentile, Way};
    use crate::cli::bench::meter::Usage;
    use crate::cli::bench::results::Occasion;
    use crate::cli::bench::udp::Trial;

    fn trial(offered: f64, delivered: f64) -> Trial {
        Trial {
            target: Some(offered),
            offered,
            delivered,
            sent: 100,
            lost: 0,
            missed: false,
            spacing: None,
        }
    }

    fn results(dataplanes: &[Dataplane]) -> Results {
        results_with(dataplanes, 0.0)
    }

    fn results_with(dataplanes: &[Dataplane], foreign_share: f64) -> Results {
        let mut results = Results::default();
        let reading = |measure, value| Reading {
            measure,
            value,
            void: false,
        };
        let usage = Usage {
            seconds: 1.0,
            busy_seconds: 1.0,
            steal_share: 0.0,
            foreign_share,
        };
        for (dataplane, round) in dataplanes
            .iter()
            .flat_map(|dataplane| [(*dataplane, 1), (*dataplane, 2)])
        {
            let occasion = Occasion {
                wire: Wire::Mtu,
                dataplane,
                round,
            };
            let readings = vec![
                reading(Measure::TcpRate(1, Way::Out), 7.5 * f64::from(round)),
                reading(Measure::UdpSaturated(64), 120.0),
                reading(Measure::RoundTrip(Beside::Idle, Percentile::P50), 25.0),
                reading(Measure::RoundTrip(Beside::Tcp, Percentile::P999), 25_000.0),
            ];
            let grid = vec![trial(50_000.0, 50_000.0), trial(100_000.0, 90_000.0)];
            let trials = Some(Trials {
                grid,
                search: Vec::new(),
                zero_loss: ZeroLoss {
                    rate: 100.0,
                    limit: Limit::Sender,
                },
            });
            results.add(
                occasion,
                Some(64),
                Findings {
                    readings,
                    trials,
                    usage,
                },
            );
        }
        results
    }

    fn page_of(dataplanes: &[Dataplane]) -> String {
        let settings = ["lanes=1", "marks=<off>"].map(|text| text.parse().expect("a setting"));
        let machine = Machine {
            cpu: "<fast> & new".to_owned(),
            ..Machine::default()
        };
        page(
            &machine,
            &settings,
            dataplanes,
            &results(dataplanes),
            &["a < b".to_owned()],
        )
        .expect("drawn in memory")
    }

    #[test]
    fn the_page_has_its_plots_and_asks_for_nothing_else() {
        let page = page_of(&[Dataplane::Kernel, Dataplane::SilkVtep]);
        // One curve, and a plot each of TCP, saturation and round trips, on the one wire with results.
        assert_eq!(page.matches("<svg").count(), 4);
        assert_eq!(page.matches("<h2>Wire").count(), 1);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        for outside in [
            "<script", "<link", "<img", "src=", "href=", "@import", "url(",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn what_does_not_count_is_pale_and_that_is_told() {
        let dataplanes = [Dataplane::SilkVtep];
        let quiet = results(&dataplanes);
        assert!(!legend(&dataplanes, &references(&quiet.rows())).contains("pale"));
        let disturbed = results_with(&dataplanes, 0.5);
        assert!(legend(&dataplanes, &references(&disturbed.rows())).contains("pale"));
    }

    fn references(rows: &[Row]) -> Vec<&Row> {
        rows.iter().collect()
    }

    #[test]
    fn text_is_escaped() {
        let page = page_of(&[Dataplane::SilkVtep]);
        assert!(page.contains("&lt;fast&gt; &amp; new") && page.contains("a &lt; b"));
        assert!(page.contains("lanes = 1, marks = \"&lt;off&gt;\""));
    }
}
