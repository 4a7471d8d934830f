use crate::archive::{Archive, NotFound};
use alerts::message::tracking::Row;
use anyhow::Result;
use clap::{Args, builder::NonEmptyStringValueParser};
use identity::instant;

#[derive(Args)]
#[command(after_help = "Example:\n  alert-archive find MSG-20240701-0000135")]
pub struct Find {
    /// The message's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    message_id: String,
    /// Print JSON: an array of ledger rows, one for each index that holds the id
    #[arg(long)]
    json: bool,
}

impl Find {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let rows = archive.ledger.rows.partition(&self.message_id).await?;
        if self.json {
            say!("{}", serde_json::to_string_pretty(&rows)?);
        }
        if rows.is_empty() {
            let told = format!("no run has seen message {}: is its time in the range of a run?", self.message_id);
            return Err(NotFound(told).into());
        }
        for row in rows.iter().filter(|_| !self.json) {
            print(row)?;
        }
        Ok(true)
    }
}

fn print(row: &Row) -> Result<()> {
    say!("{} of {}: {:?}, {}", row.message_id, row.source_index, row.status, row.disposition.as_str());
    let at = |at: Option<jiff::Timestamp>| at.map(instant::iso);
    for (name, value) in [
        ("message time", Some(instant::iso(row.timestamp))),
        ("object", row.s3_path.clone()),
        ("reason", row.reason.clone()),
        ("sha256", Some(row.version.clone())),
        ("first seen", Some(instant::iso(row.inserted_at))),
        ("first seen open", at(row.first_seen_open)),
        ("archived", at(row.processed_at)),
        ("open again since", at(row.reopened_at)),
        ("gone since", at(row.gone_at)),
        ("run", Some(row.run_id.clone())),
    ] {
        if let Some(value) = value {
            say!("  {name:<16} {value}");
        }
    }
    if row.is_reopened() {
        say!("  what is archived of it is not final: it was opened again");
    }
    if row.is_gone_unwritten() {
        say!("  it left the source before a run had written it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::given::given;

    #[tokio::test]
    async fn a_message_that_no_run_has_seen_is_not_found() {
        let world = given().await;
        let find = |message_id: &str, json| Find { message_id: message_id.to_owned(), json };
        assert!(find("a", false).call(&world.archive).await.expect("found"));
        for json in [false, true] {
            assert!(find("nobody", json).call(&world.archive).await.expect_err("nobody").is::<NotFound>());
        }
    }
}
