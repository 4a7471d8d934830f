//! A mail: a headline, sections, links. Rendered as HTML, light and dark, and as text of the same content.

use crate::section::{Block, Section, State, tamed};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the mail's text could not be put together")]
    Text(#[from] minijinja::Error),
    #[error("the mail's chart could not be drawn")]
    Chart(#[from] std::io::Error),
    #[error("the list that goes along with the mail could not be written")]
    List(#[from] csv::Error),
}

/// What a mail says, before it is a mail. Its subject begins with the name of the pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Letter {
    pub subject: String,
    /// This mail may have gone out before.
    pub duplicate: bool,
    /// Above the headline, in small: what the mail is about.
    pub about: String,
    pub state: State,
    /// Whether anything needs doing, in a sentence.
    pub headline: String,
    pub sections: Vec<Section>,
    /// Below the sections.
    pub chart: Option<Chart>,
    pub links: Vec<Link>,
    pub footer: String,
}

/// A picture that comes with the mail; the text part does without, so that a section must say the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chart {
    /// As which it goes along.
    pub name: String,
    /// What it shows, for those who do not see it.
    pub told: String,
}

/// Where a reader may go on; only http and https are linked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    pub label: String,
    pub url: String,
}

/// The mail's subject and its two parts of the same content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub subject: String,
    pub text: String,
    pub html: String,
}

impl Letter {
    pub fn render(&self) -> Result<Rendered, Error> {
        let view = self.view();
        let environment = environment()?;
        let render = |name: &str| environment.get_template(name)?.render(Serde(&view));
        let subject = view["subject"].as_str().unwrap_or_default().to_owned();
        Ok(Rendered { subject, text: render("letter.txt")?, html: render("letter.html")? })
    }

    /// What the templates fill in: each text on one line, and what they cannot work out themselves.
    fn view(&self) -> Value {
        let mut view = json!(self);
        if self.duplicate {
            view["subject"] = json!(format!("[duplicate] {}", self.subject));
        }
        view["links"] = self.links.iter().filter(|link| is_web(&link.url)).map(|link| json!(link)).collect();
        for (section, shown) in self.sections.iter().zip(list(&mut view["sections"])) {
            for (block, shown) in section.blocks.iter().zip(list(&mut shown["blocks"])) {
                complete(block, shown);
            }
        }
        tamed(view)
    }
}

fn complete(block: &Block, shown: &mut Value) {
    match block {
        Block::Account(account) => {
            let counts: Vec<u64> = account.parts.iter().map(|part| part.count).collect();
            shown["widths"] = json!(widths(&counts));
            shown["equation"] = json!(account.equation());
            shown["unaccounted"] = json!(account.unaccounted().unsigned_abs() as u64);
        }
        Block::Table(table) => shown["lines"] = json!(table.lines()),
        Block::Bars { bars, .. } => {
            let most = bars.iter().map(|bar| bar.value).max().unwrap_or(0).max(1);
            let width = |value: u64| (u128::from(value) * 100 / u128::from(most)).max(u128::from(value > 0)) as u64;
            shown["widths"] = bars.iter().map(|bar| json!(width(bar.value))).collect();
        }
        Block::Problems { problems, .. } => {
            for (problem, shown) in problems.iter().zip(list(&mut shown["problems"])) {
                shown["link"] = json!(problem.link.as_deref().filter(|url| is_web(url)));
            }
        }
        _ => {}
    }
}

fn list(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_array_mut().into_iter().flatten()
}

/// Whole per cent that add up to 100, none of them nothing for something.
fn widths(counts: &[u64]) -> Vec<u64> {
    let total: u128 = counts.iter().map(|&count| u128::from(count)).sum();
    let share = |&count: &u64| match count {
        0 => 0,
        count => (u128::from(count) * 100 / total).max(1) as u64,
    };
    let mut widths: Vec<u64> = counts.iter().map(share).collect();
    let rest = 100 - widths.iter().sum::<u64>() as i64;
    if let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > 0) {
        *widest = widest.saturating_add_signed(rest);
    }
    widths
}

fn is_web(url: &str) -> bool {
    (url.starts_with("https://") || url.starts_with("http://"))
        && !url.chars().any(|c| c.is_control() || c.is_whitespace())
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment
        .set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
    environment.add_test("date", |text: &str| jiff::civil::Date::strptime("%Y-%m-%d", text).is_ok());
    environment.add_filter("grouped", |number: u64| crate::words::grouped(number));
    environment.add_template("letter.txt", include_str!("../templates/letter.txt"))?;
    environment.add_template("blocks.html", include_str!("../templates/blocks.html"))?;
    environment.add_template("letter.html", include_str!("../templates/letter.html"))?;
    Ok(environment)
}
