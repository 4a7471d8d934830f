use super::{dry_run, range_of, usage, watch::follow};
use crate::{archive::Archive, print};
use alerts::run::payloads::Input;
use anyhow::Result;
use clap::{Args, ValueEnum};
use identity::instant;
use jiff::Timestamp;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive run --from 2019-01-01 --to 2019-07-01 --wait
  alert-archive run --from 2024-07-01T12:00:00Z --to 2024-07-02 --wait --json
  alert-archive run --from 2024-07 --to 2024-08 --dry-run    windows, messages, time and cost; starts nothing
  alert-archive run --from 2024-07-01 --to 2024-08-01 --mode extract   stage only
  alert-archive run --mode process                                     write what is staged
  alert-archive run --mode recheck --wait                              archive what has closed since
  alert-archive run --mode scheduled --catch-up                        all that lies behind the watermark, run by run")]
pub struct Run {
    /// First instant of the range, in UTC: a date or an instant
    #[arg(long, value_name = "D")]
    from: Option<String>,
    /// End of the range, not included
    #[arg(long, value_name = "D")]
    to: Option<String>,
    #[arg(long, value_enum, default_value = "range")]
    mode: Mode,
    /// With --mode scheduled: the time that the schedule would have given; now, where it is not said
    #[arg(long, value_name = "T")]
    scheduled_for: Option<String>,
    /// Only say what would be planned, how long it would take and what it would cost
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// With --mode scheduled: where a run leaves a part of its range to the next, wait for its end and start that one.
    /// Stopped with Ctrl-C, it goes on where it was when it is called again
    #[arg(long, conflicts_with_all = ["from", "to", "json"])]
    catch_up: bool,
    /// Follow the run to its end and print its report
    #[arg(long)]
    wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    /// The range as given
    Range,
    /// The range as given, but only staged: nothing is archived until mode process
    Extract,
    /// Write what is staged as pending
    Process,
    /// From the watermark to --scheduled-for, as the weekly schedule does; held-over messages too
    Scheduled,
    /// Held-over messages only, wherever they lie
    Recheck,
}

impl Run {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        if self.dry_run {
            usage(self.has_range(), "--dry-run counts the messages of a range: it goes with --mode range and extract")?;
            let (from, to) = range_of(self.from.as_deref(), self.to.as_deref())?;
            return dry_run::show(archive, from, to, self.json).await;
        }
        usage(!self.catch_up || self.mode == Mode::Scheduled, "--catch-up needs --mode scheduled")?;
        loop {
            let (input, name) = self.input()?;
            let input = serde_json::to_string(&input)?;
            let execution = archive.workflow.start(&archive.state_machine_arn, &name, input).await?;
            if !self.wait && !self.catch_up {
                print::started(&name, self.json)?;
                return Ok(true);
            }
            let went_well = follow(archive, &name, &execution, self.json).await?;
            let left = archive.job_runs.get(&name).await?.and_then(|run| run.left);
            let Some(left) = left.filter(|_| self.catch_up && went_well) else { return Ok(went_well) };
            eprintln!("{} messages are left from {} on: the next run begins", left.messages, instant::iso(left.from));
        }
    }

    pub fn has_run(&self) -> bool {
        !self.dry_run
    }

    fn has_range(&self) -> bool {
        matches!(self.mode, Mode::Range | Mode::Extract)
    }

    fn input(&self) -> Result<(Input, String)> {
        // What would be passed over in silence may be what mattered.
        let is_bare = self.from.is_none() && self.to.is_none();
        usage(self.has_range() || is_bare, "--from and --to go with --mode range and extract only")?;
        let is_planned = self.scheduled_for.is_none() || self.mode == Mode::Scheduled;
        usage(is_planned, "--scheduled-for needs --mode scheduled")?;
        // The name is the run's id: readable, and unlike any other.
        let unique = Timestamp::now().strftime("%Y%m%dT%H%M%S%3f");
        let range = || -> Result<(String, String, String)> {
            let (from, to) = range_of(self.from.as_deref(), self.to.as_deref())?;
            let name = format!("{}-{}-{unique}", from.strftime("%Y%m%d"), to.strftime("%Y%m%d"));
            Ok((instant::iso(from), instant::iso(to), name))
        };
        Ok(match self.mode {
            Mode::Range => {
                let (from, to, name) = range()?;
                (Input::Range { from, to }, format!("range-{name}"))
            }
            Mode::Extract => {
                let (from, to, name) = range()?;
                (Input::Extract { from, to }, format!("extract-{name}"))
            }
            Mode::Process => (Input::Process, format!("process-{unique}")),
            Mode::Recheck => (Input::Recheck, format!("recheck-{unique}")),
            Mode::Scheduled => {
                let at = super::instant_of("--scheduled-for", Some(self.scheduled_for.as_deref().unwrap_or("now")))?;
                (
                    Input::Scheduled { scheduled_for: instant::iso(at) },
                    format!("scheduled-{}-{unique}", at.strftime("%Y%m%d")),
                )
            }
        })
    }
}
