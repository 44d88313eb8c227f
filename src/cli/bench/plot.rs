//! Plots as SVG: curves of delivered over offered, and figures side by side with their ranges.

use std::fmt::Display;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use super::dataplane::Dataplane;
use super::results::Point;
use super::summary::Summary;
use super::table::number;

/// Width and height of a plot.
const SIZE: (u32, u32) = (560, 320);
const FONT: (&str, u32) = ("sans-serif", 12);
const MARGIN: u32 = 10;
const LABELS_WIDTH: u32 = 56;
const LABELS_HEIGHT: u32 = 40;
/// Of the room that one group has, what all its bars take.
const BARS_WIDTH: f64 = 0.72;
/// And what one of them takes at most.
const BAR_WIDTH_MAX: f64 = 0.32;
/// Between two bars.
const GAP_WIDTH: f64 = 0.015;
/// Of what counts, and of what does not.
const OPACITY: f64 = 0.9;
const VOID_OPACITY: f64 = 0.4;
/// Room above the highest value.
const HEADROOM: f64 = 1.08;

/// What is drawn of a group: a name and a figure of each dataplane.
pub(super) struct Group {
    pub(super) label: String,
    pub(super) figures: Vec<(Dataplane, Summary)>,
}

/// How the values of groups are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Bars from zero.
    Linear,
    /// Marks on a logarithmic axis, for values that lie far apart.
    Log,
}

/// The colour that stands for a dataplane, as CSS has it.
pub(super) fn css_color(dataplane: Dataplane) -> String {
    let RGBColor(red, green, blue) = color(dataplane);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Delivered over offered, in thousands of datagrams a second, with the line of no loss.
///
/// # Errors
/// If the library does not draw it.
pub(super) fn curves(curves: &[(Dataplane, Vec<Point>)]) -> Result<String, String> {
    let points = || curves.iter().flat_map(|(_, points)| points);
    let top = |value: fn(&Point) -> f64| points().map(value).fold(1.0, f64::max) / 1e3 * HEADROOM;
    let (right, upper) = (top(|point| point.offered), top(|point| point.max));
    drawn(|area| {
        let mut chart = framed(area).build_cartesian_2d(0.0..right, 0.0..upper)?;
        let axes = ["offered, kpps", "delivered, kpps"];
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .label_style(FONT)
            .x_desc(axes[0])
            .y_desc(axes[1])
            .draw()?;
        let lossless = right.min(upper);
        chart.draw_series(LineSeries::new(
            [(0.0, 0.0), (lossless, lossless)],
            BLACK.mix(0.3),
        ))?;
        for (dataplane, points) in curves {
            let color = color(*dataplane);
            let line = points
                .iter()
                .map(|point| (point.offered / 1e3, point.delivered / 1e3));
            chart.draw_series(LineSeries::new(line.clone(), color.stroke_width(2)))?;
            chart.draw_series(line.map(|at| Circle::new(at, 3, color.filled())))?;
            let range = |point: &Point| {
                let at = point.offered / 1e3;
                PathElement::new([(at, point.min / 1e3), (at, point.max / 1e3)], color)
            };
            chart.draw_series(points.iter().map(range))?;
        }
        Ok(())
    })
}

/// Figures side by side, a group for each label; `unit` is what they count.
///
/// # Errors
/// As [`curves`].
pub(super) fn groups(groups: &[Group], unit: &str, scale: Scale) -> Result<String, String> {
    let summaries = || {
        groups
            .iter()
            .flat_map(|group| &group.figures)
            .map(|(_, summary)| summary)
    };
    let upper = summaries().map(|summary| summary.max).fold(0.0, f64::max);
    let lower = summaries()
        .map(|summary| summary.min)
        .filter(|min| *min > 0.0)
        .fold(upper, f64::min);
    let right = groups.len() as f64 - 0.5;
    drawn(|area| match scale {
        // Without any value there still must be some room.
        Scale::Linear if upper > 0.0 => {
            let chart = framed(area).build_cartesian_2d(-0.5..right, 0.0..upper * HEADROOM)?;
            draw_groups(chart, groups, unit, scale)
        }
        Scale::Log if upper > 0.0 => {
            let values = (lower / 2.0..upper * 2.0).log_scale();
            let chart = framed(area).build_cartesian_2d(-0.5..right, values)?;
            draw_groups(chart, groups, unit, scale)
        }
        Scale::Linear | Scale::Log => Ok(()),
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawError = DrawingAreaErrorKind<std::io::Error>;

fn draw_groups<'a, Y>(
    mut chart: ChartContext<
        '_,
        SVGBackend<'a>,
        Cartesian2d<plotters::coord::types::RangedCoordf64, Y>,
    >,
    groups: &[Group],
    unit: &str,
    scale: Scale,
) -> Result<(), DrawError>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let label = |x: &f64| {
        let at_group = (x - x.round()).abs() < 1e-6;
        let index = x.round() as usize;
        groups
            .get(index)
            .filter(|_| at_group)
            .map(|group| group.label.clone())
            .unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .label_style(FONT)
        .x_labels(groups.len() * 2)
        .x_label_formatter(&label)
        .y_label_formatter(&|value| number(*value))
        .y_desc(unit)
        .draw()?;
    for (group, center) in groups.iter().zip(0_u32..) {
        let count = group.figures.len() as f64;
        let width = (BARS_WIDTH / count).min(BAR_WIDTH_MAX);
        for ((dataplane, summary), place) in group.figures.iter().zip(0_u32..) {
            let left = f64::from(center) + (f64::from(place) - count / 2.0) * width;
            let place = (left, left + width);
            draw_figure(&mut chart, *dataplane, summary, place, scale)?;
        }
    }
    Ok(())
}

/// A bar or a mark at the median, and a line from minimum to maximum, between `left` and `right`.
fn draw_figure<X, Y>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    dataplane: Dataplane,
    summary: &Summary,
    (left, right): (f64, f64),
    scale: Scale,
) -> Result<(), DrawError>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    let opacity = if summary.void { VOID_OPACITY } else { OPACITY };
    let style = color(dataplane).mix(opacity).filled();
    let center = f64::midpoint(left, right);
    match scale {
        Scale::Linear => {
            let corners = [(left, 0.0), (right - GAP_WIDTH, summary.median)];
            chart.draw_series([Rectangle::new(corners, style)])?;
        }
        Scale::Log => {
            chart.draw_series([Circle::new((center, summary.median), 4, style)])?;
        }
    }
    let range = [(center, summary.min), (center, summary.max)];
    chart.draw_series([PathElement::new(range, BLACK.mix(0.7))])?;
    Ok(())
}

fn color(dataplane: Dataplane) -> RGBColor {
    match dataplane {
        Dataplane::Kernel => RGBColor(0x5b, 0x7f, 0xa6),
        Dataplane::SilkVtep => RGBColor(0xe0, 0x7b, 0x39),
        Dataplane::Ovs => RGBColor(0x7a, 0xa3, 0x5c),
    }
}

fn framed<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .margin(MARGIN)
        .x_label_area_size(LABELS_HEIGHT)
        .y_label_area_size(LABELS_WIDTH);
    builder
}

/// The SVG of what `draw` draws.
fn drawn(draw: impl FnOnce(&Area<'_>) -> Result<(), DrawError>) -> Result<String, String> {
    fn plain(error: impl Display) -> String {
        format!("draw plot: {error}")
    }
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    draw(&area).map_err(plain)?;
    area.present().map_err(plain)?;
    drop(area);
    Ok(svg)
}
