use std::fmt;

/// Whether the state machine calls a step again when it fails with this name. What is not retried ends the window, or
/// the execution where no window is at work. A function that a queue starts is called again whatever the name; there
/// the redrive policy of its queue counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retried {
    No,
    /// Six times: 2 s, doubling up to 60 s, with full jitter.
    Yes,
    /// For up to 20 minutes, because what it waits for takes as long as a lease.
    Slowly,
}

/// One row of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: &'static str,
    pub retried: Retried,
    /// What happened, for the README's table.
    pub meaning: &'static str,
    /// What the operator does about it: one or two sentences, in mail, page, command line and README alike.
    pub advice: &'static str,
}

macro_rules! names {
    ($($name:ident { retried: $retried:ident, meaning: $meaning:literal, advice: $advice:literal, })*) => {
        /// The stable name of an error of ours.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Name {
            $($name,)*
        }

        impl Name {
            pub const ALL: &[Name] = &[$(Name::$name,)*];

            pub const fn entry(self) -> &'static Entry {
                match self {
                    $(Name::$name => &Entry {
                        name: stringify!($name),
                        retried: Retried::$retried,
                        meaning: $meaning,
                        advice: $advice,
                    },)*
                }
            }
        }
    };
}

// Grouped by where the name is raised; a pipeline adds its own group at the end.
names! {
    // Any step
    InvalidInput {
        retried: No,
        meaning: "the execution's input or a state's payload is not what the contract says",
        advice: "Correct the input and start anew: a redrive would repeat the input.",
    }
    ConfigMissing {
        retried: No,
        meaning: "an environment variable of the function is absent or unreadable; the message names all of them",
        advice: "Apply the Terraform again, then redrive.",
    }
    NoProgress {
        retried: No,
        meaning: "a step was called twice in a row and got no further",
        advice: "One document or day is too large: the message names it. Give the function more memory or time, then \
            redrive.",
    }
    CompressionFailed {
        retried: No,
        meaning: "zstd refused what it was given",
        advice: "This is a fault of the program: report it with the window's name.",
    }
    EncodingFailed {
        retried: No,
        meaning: "Parquet refused what it was given",
        advice: "This is a fault of the program: report it with the window's name.",
    }

    // The source
    SourceUnavailable {
        retried: Yes,
        meaning: "OpenSearch or the API does not answer, or is overloaded",
        advice: "Check the source. Run what failed again once it answers.",
    }
    SourceBusy {
        retried: Yes,
        meaning: "the nodes of OpenSearch hold as many points in time as they may",
        advice: "Lower `max_concurrency`, or raise `search.max_open_pit_context` of the cluster. Then run what failed \
            again.",
    }
    SourceIndexMissing {
        retried: No,
        meaning: "an index or alias does not exist",
        advice: "Check the three configured index names, then run what failed again.",
    }
    SourceIndexClosed {
        retried: No,
        meaning: "an index that is asked for is closed",
        advice: "Open the index that the message names (`POST /INDEX/_open`), or take it out of the alias, then run \
            what failed again.",
    }
    MappingUnsupported {
        retried: No,
        meaning: "a field that the archive relies on is mapped in a way that it cannot search or sort",
        advice: "The message names field and mapping: correct the mapping or reindex, then run what failed again.",
    }
    SourceRejected {
        retried: No,
        meaning: "the source refused the request: its rights, its address, or the request itself; a redirect is not \
            followed",
        advice: "The message says what was asked, of which index, and the source's answer. Status 401 or 403: check \
            role and secret. A redirect: check the address. Else correct what the answer names. Then run what failed \
            again.",
    }
    SourceUnreadable {
        retried: Yes,
        meaning: "what the API answered is not a page: cut, empty, HTML, or without a list of messages or its totals",
        advice: "Look at what the API answers: a proxy or a login page may stand before it. Then run what failed \
            again.",
    }
    PageIncomplete {
        retried: Yes,
        meaning: "a page came back with failed shards or cut short, even when asked for again",
        advice: "Bring the cluster to green, then run what failed again.",
    }
    PointInTimeExpired {
        retried: Yes,
        meaning: "the source forgot the snapshot that the window was read from, and again after the function had \
            started over",
        advice: "Run what failed again. If it comes back, let a point in time live longer in the cluster.",
    }
    CountMismatch {
        retried: No,
        meaning: "documents read and documents counted differ, or `source = archived + already_archived + open + \
            quarantined` does not hold",
        advice: "The source changed while it was read: run what failed again. If it comes back, run `alert-archive \
            verify` and report the numbers.",
    }

    // Stores
    StoreUnavailable {
        retried: Yes,
        meaning: "S3 does not answer, or throttles",
        advice: "See the AWS health page, then run what failed again.",
    }
    BucketMissing {
        retried: No,
        meaning: "the bucket does not exist, or the function may not see it",
        advice: "Apply the Terraform again, then run what failed again.",
    }
    StoreDenied {
        retried: No,
        meaning: "the function's role may not do that in the bucket; the message names operation and key",
        advice: "Apply the Terraform again, and look for a bucket policy that forbids it. Then run what failed again.",
    }
    ObjectMissing {
        retried: No,
        meaning: "an object that an earlier step wrote is gone",
        advice: "After more than 30 days the spool has expired: run what failed again, it is read anew. Before that, \
            find out who deletes in the bucket.",
    }
    ObjectConflict {
        retried: No,
        meaning: "an object that must be new exists with another content",
        advice: "Run what failed again: it goes on with the object that it finds. If it comes back, report the key and \
            do not delete it.",
    }
    ObjectCorrupt {
        retried: No,
        meaning: "an object read back is not what was written",
        advice: "Do not delete anything at the source. Run what failed again; if it comes back, run `alert-archive \
            verify --deep`.",
    }
    LedgerUnavailable {
        retried: Yes,
        meaning: "DynamoDB does not answer, or throttles",
        advice: "See the AWS health page, then run what failed again.",
    }
    LedgerDenied {
        retried: No,
        meaning: "the function's role may not do that on the table; the message names operation and table",
        advice: "Apply the Terraform again, then run what failed again.",
    }
    LedgerCorrupt {
        retried: No,
        meaning: "a row of a table cannot be read: another program wrote it",
        advice: "The message names table and field: correct the row, then run what failed again.",
    }
    TableMissing {
        retried: No,
        meaning: "a table does not exist",
        advice: "Apply the Terraform again, then run what failed again.",
    }

    // Runs and windows of the archive
    RangeBusy {
        retried: No,
        meaning: "another run works on an overlapping range; the message names it",
        advice: "Wait for that run to finish, then redrive.",
    }
    WindowBusy {
        retried: Slowly,
        meaning: "a window of another run holds messages of this one and showed a sign of life within 30 seconds",
        advice: "Wait for the run that the message names, or stop it, then run what failed again.",
    }
    WindowSuperseded {
        retried: No,
        meaning: "a newer attempt has taken the window over, or its intent was amended meanwhile",
        advice: "Wait for the newer attempt, which reports on the window. Run what failed again only if that one \
            fails.",
    }
    SpoolUnfinished {
        retried: No,
        meaning: "the spool of a window ends before its last page, so that the window cannot be classified",
        advice: "Run what failed again: it is read from the source anew.",
    }
    PlanMissing {
        retried: No,
        meaning: "a run that should have a plan has none, or its rows are gone",
        advice: "Start the range anew.",
    }
    StepCrashed {
        retried: No,
        meaning: "stands in a report: a step of the window began and never came back, killed, timed out or out of \
            memory, after the workflow's retries",
        advice: "The log of the step's function says why. Then run what failed again.",
    }
    NotStarted {
        retried: No,
        meaning: "stands in a report: the Map never started the window",
        advice: "The Map Run in the console says why. Then run what failed again.",
    }
    WindowSkipped {
        retried: No,
        meaning: "stands in a report: an operator skipped the window, with a reason; `unresolved` of every later \
            report names it",
        advice: "When its cause is gone: `alert-archive skip RUN WINDOW --undo`, then `alert-archive rerun RUN`. A \
            later run over all of its range resolves it as well.",
    }
    WindowsFailed {
        retried: No,
        meaning: "the run is over, its report is out, and windows failed",
        advice: "Read the report, correct what it names, then redrive.",
    }
    ExecutionDied {
        retried: No,
        meaning: "stands on a run whose execution ended before its report, written by `mark-dead-run`",
        advice: "The execution's history says where it died: correct that, then redrive.",
    }
    RunCancelled {
        retried: No,
        meaning: "stands on a run that an operator ended with `alert-archive cancel`, with the reason",
        advice: "Nothing, if it is not to go on: what it had planned and not done is told as a gap. Else redrive.",
    }

    // Step Functions
    WorkflowUnavailable {
        retried: Yes,
        meaning: "Step Functions does not answer a question about the execution",
        advice: "See the AWS health page, then redrive.",
    }
    ExecutionMissing {
        retried: No,
        meaning: "Step Functions does not know the execution any more: it ended more than 90 days ago",
        advice: "Start the range anew.",
    }
    ExecutionExists {
        retried: No,
        meaning: "an execution of that name was started before; its run is not this one",
        advice: "Give the run another name.",
    }
    ExecutionNotRedrivable {
        retried: No,
        meaning: "Step Functions refuses the redrive (met by the command line); the message says why",
        advice: "Use `alert-archive rerun RUN` without `--redrive`.",
    }

    // Mail
    MailRejected {
        retried: No,
        meaning: "SES refuses the mail: sender or recipient not verified, or the account suspended",
        advice: "Verify the address in SES, then redrive.",
    }
    MailUnavailable {
        retried: Yes,
        meaning: "SES does not answer, or throttles",
        advice: "See the AWS health page, then redrive.",
    }

    // Functions that S3 events start
    EventUnreadable {
        retried: No,
        meaning: "a notification is not an S3 event",
        advice: "Look at the message in the dead-letter queue: its sender is not S3.",
    }
    EventRecordUnreadable {
        retried: No,
        meaning: "a record of an S3 event lacks what it must have; the others of its event are used",
        advice: "The message names what is wrong: look for a sender that is not S3.",
    }
    EventKeyUnreadable {
        retried: No,
        meaning: "the key in a record of an S3 event is not URL-encoded UTF-8; the others of its event are used",
        advice: "The message names the key: copy the object to another one.",
    }
    QueueMissing {
        retried: No,
        meaning: "the queue does not exist (met by the command line)",
        advice: "Apply the Terraform again, and check the queue's URL in the environment.",
    }
    QueueDenied {
        retried: No,
        meaning: "you may not do that with the queue (met by the command line)",
        advice: "Call it with the rights of an operator.",
    }
    QueueUnavailable {
        retried: No,
        meaning: "SQS does not answer, or throttles (met by the command line)",
        advice: "See the AWS health page, then repeat the command.",
    }

    // Warehouse
    SchemaMissing {
        retried: No,
        meaning: "there is no schema file in force",
        advice: "Put one in force: alert-archive warehouse apply FILE.",
    }
    SchemaInvalid {
        retried: No,
        meaning: "the schema file in force is not valid",
        advice: "See each mistake with alert-archive warehouse check FILE, correct the file and apply it again.",
    }
    UnknownTable {
        retried: No,
        meaning: "a table of the schema file is not in the database, or a table was asked for that is not in the file",
        advice: "Correct the name in the schema file or in the call, or create the table.",
    }
    MissingTimestampColumn {
        retried: No,
        meaning: "a cursor column is not in the table, or is no timestamp",
        advice: "Name a column of type timestamptz or timestamp as cursor in the schema file, or add it to the table.",
    }
    MissingKeyColumn {
        retried: No,
        meaning: "a key column is not in the table",
        advice: "Correct key in the schema file: without it, rows cannot be told apart.",
    }
    ConnectionFailed {
        retried: Yes,
        meaning: "the database could not be reached, refused the credentials, or broke the connection off",
        advice: "See whether the database runs and its secret is right; what was not read is read by the next ingest.",
    }
    PermissionDenied {
        retried: No,
        meaning: "the role of the functions may not read the table, all of its rows, or the start of other \
            transactions",
        advice: "Grant the role what docs/warehouse.md names, then ingest again.",
    }
    TransactionsHidden {
        retried: No,
        meaning: "the database is a read replica, or track_activities is off: rows of a transaction that commits late \
            would be missed",
        advice: "Name the primary in the secret, or set track_activities to on, then ingest again.",
    }
    ReadFailed {
        retried: Yes,
        meaning: "the database ended the read of a table, for example at its time limit",
        advice: "The message has the database's own words; raise the time limit of a read if it was too short.",
    }
    ObjectExists {
        retried: No,
        meaning: "an object that is not ours lies where the next one of a table belongs; nothing was overwritten",
        advice: "Find out who wrote the object that is named and move it away; the next ingest then goes on.",
    }
    ParameterMissing {
        retried: No,
        meaning: "a parameter that the message names is not in Parameter Store",
        advice: "A list of recipients: apply the Terraform again, then run what failed again. One of the warehouse: \
            ingest its table again.",
    }
    ParameterUnreadable {
        retried: No,
        meaning: "a parameter of the warehouse is not the JSON that an ingest writes",
        advice: "Set it right or delete it; the next ingest writes it from the table's row.",
    }
    ParameterDenied {
        retried: No,
        meaning: "Parameter Store refuses the call",
        advice: "Apply the Terraform again, and compare the policy of the function's role with infra/policies.",
    }
    ParametersUnavailable {
        retried: Yes,
        meaning: "Parameter Store does not respond, or not in time",
        advice: "It is tried again; if it persists, look at the state of the service.",
    }
    SecretUnavailable {
        retried: Yes,
        meaning: "the secret with the database's credentials cannot be read, or lacks a part",
        advice: "See whether the secret exists, has username and password, and may be read by the function, and whether \
            it or Terraform names host and database.",
    }
    AuthoritiesUnusable {
        retried: No,
        meaning: "the file with the authorities that the database's certificate is checked by is missing, or is no PEM",
        advice: "Correct database_ca_file and apply it with Terraform.",
    }
    WarehouseBusy {
        retried: Slowly,
        meaning: "another call is at work on the same table or build",
        advice: "Nothing: it is tried again until the other one has ended.",
    }
    WarehouseSuperseded {
        retried: Yes,
        meaning: "another call took over while this one was held up; it has changed nothing since",
        advice: "Nothing: the one that took over finishes the work.",
    }
    ScratchFailed {
        retried: Yes,
        meaning: "the function's own disk is full or failed",
        advice: "Give the function more disk in function_sizes.",
    }
    TableNotWritten {
        retried: Yes,
        meaning: "rows could not be written as Parquet",
        advice: "This is a fault of the program: report it with the message.",
    }

    // Log errors
    LogPatternsInvalid {
        retried: No,
        meaning: "the pattern file for logs cannot be read; the message names line and column",
        advice: "Correct the file and apply the Terraform again; the logs wait in their queue.",
    }
    LogTooLong {
        retried: No,
        meaning: "a log object cannot be extracted within one call of the function",
        advice: "Give extract-log-errors more memory, which brings more CPU, and redrive its dead-letter queue.",
    }
    LogBusy {
        retried: No,
        meaning: "another call works on the same log object",
        advice: "Nothing: the queue delivers the event again.",
    }
    // Partner feeds: the queue delivers such a message again, and after ten times it is in the dead-letter queue
    UnknownContentType {
        retried: No,
        meaning: "a partner's file has a key without content type or partner, or a content type without a row in the \
            partners' table",
        advice: "Add the row to the partners' table, or correct the key. Then run `alert-archive feeds replay-dlq`.",
    }
    FeedFileMissing {
        retried: No,
        meaning: "the version of a partner's file that an event names does not exist",
        advice: "Ask the partner for the file again. Then delete the message from the dead-letter queue.",
    }
    FeedFileBusy {
        retried: No,
        meaning: "another function holds a partner's file; the next delivery finds it done",
        advice: "Nothing, unless it goes on for an hour: then look at the other function's log.",
    }
    ForeignBucket {
        retried: No,
        meaning: "an event in the feeds' queue is about another bucket",
        advice: "Find out who sends it, and delete the message from the dead-letter queue.",
    }
    OutOfTime {
        retried: No,
        meaning: "a call ended before it came to a file; the next delivery goes on with it",
        advice: "Nothing, unless messages grow old: then make batches smaller.",
    }
}

impl Name {
    pub const fn as_str(self) -> &'static str {
        self.entry().name
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.as_str().to_owned()
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

/// Names that Lambda and Step Functions give to what no code of ours could name. All are retried.
pub const PLATFORM: &[Entry] = &[
    platform("Lambda.ServiceException", "Lambda had a fault", "See the AWS health page, then redrive."),
    platform("Lambda.AWSLambdaException", "Lambda had a fault", "See the AWS health page, then redrive."),
    platform("Lambda.SdkClientException", "Lambda was out of reach", "See the AWS health page, then redrive."),
    platform(
        "Lambda.ClientExecutionTimeoutException",
        "the connection to Lambda broke while it ran",
        "Run what failed again.",
    ),
    platform(
        "Lambda.TooManyRequestsException",
        "the account's concurrency is used up",
        "Lower `max_concurrency` or raise the quota, then run what failed again.",
    ),
    platform(
        "Lambda.Unknown",
        "the runtime ended without a response, for example for want of memory",
        "Look for `Memory Size` in the function's log and raise its memory, then run what failed again.",
    ),
    platform(
        "Sandbox.Timedout",
        "the Lambda ran into its timeout instead of stopping in time",
        "Raise the timeout or lower `window_messages`, then run what failed again.",
    ),
    platform(
        "Runtime.ExitError",
        "the process of the function died",
        "The last lines of its log say why. Then run what failed again.",
    ),
    platform(
        "States.Timeout",
        "the Task ran into `TimeoutSeconds`",
        "Raise the timeout or lower `window_messages`, then run what failed again.",
    ),
    platform(
        "States.ItemReaderFailed",
        "the Map could not read the list of windows",
        "Does `runs/<run>/windows*.jsonl` exist, and may the state machine's role read it? Then redrive.",
    ),
    platform(
        "States.ResultWriterFailed",
        "the Map could not write to `runs/<run>/map/`",
        "May the state machine's role write there? Then redrive.",
    ),
];

const fn platform(name: &'static str, meaning: &'static str, advice: &'static str) -> Entry {
    Entry { name, retried: Retried::Yes, meaning, advice }
}

/// The entry of a name, ours or the platform's; `None` for a name that is not in the registry.
pub fn entry(name: &str) -> Option<&'static Entry> {
    let ours = Name::ALL.iter().map(|known| known.entry());
    ours.chain(PLATFORM).find(|entry| entry.name == name)
}

/// What to do about an error of that name.
pub fn advice(name: &str) -> &'static str {
    entry(name).map_or("Look into the log of the function, then run what failed again.", |entry| entry.advice)
}

/// The README of the state machines with its two tables as the registry has them; `None` when it lacks their marks.
pub fn explained(readme: &str) -> Option<String> {
    let with_platform = between(readme, "platform errors", &platform_table())?;
    between(&with_platform, "errors", &table())
}

fn between(text: &str, name: &str, table: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{table}{end}{after}"))
}

fn platform_table() -> String {
    let rows =
        PLATFORM.iter().map(|Entry { name, meaning, advice, .. }| format!("| `{name}` | {meaning} | {advice} |\n"));
    "| error | meaning | what the operator does |\n|---|---|---|\n".to_owned() + &rows.collect::<String>()
}

fn table() -> String {
    let row = |Entry { name, retried, meaning, advice }: &Entry| {
        let retried = match retried {
            Retried::No => "no",
            Retried::Yes => "yes",
            Retried::Slowly => "yes, for up to 20 minutes",
        };
        format!("| `{name}` | {meaning} | {retried} | {advice} |\n")
    };
    let rows: String = Name::ALL.iter().map(|name| row(name.entry())).collect();
    "| error | meaning | retried | what the operator does |\n|---|---|---|---|\n".to_owned() + &rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn all() -> impl Iterator<Item = &'static Entry> {
        Name::ALL.iter().map(|name| name.entry()).chain(PLATFORM)
    }

    #[test]
    fn each_name_stands_once_and_is_found_again() {
        let names: HashSet<_> = all().map(|entry| entry.name).collect();
        assert_eq!(names.len(), all().count());
        for known in all() {
            assert_eq!(entry(known.name), Some(known));
        }
        assert_eq!(entry("Unheard"), None);
    }

    #[test]
    fn advice_is_a_sentence_and_a_meaning_is_a_cell_of_a_table() {
        for Entry { name, meaning, advice, .. } in all() {
            assert!(
                advice.ends_with('.') && advice.starts_with(|first: char| first.is_uppercase()),
                "{name}: {advice}"
            );
            assert!(!meaning.ends_with('.') && !meaning.is_empty(), "{name}: {meaning}");
            assert!(!advice.contains(['|', '\n']) && !meaning.contains(['|', '\n']), "{name}");
        }
    }

    /// A run that died in its plan meets the same errors as a window, and so does a command.
    #[test]
    fn advice_fits_a_plan_a_window_and_a_whole_run() {
        for name in all().map(|entry| entry.name).chain(["Unheard"]) {
            assert!(!advice(name).to_lowercase().contains("window again"), "{name}: {}", advice(name));
        }
    }
}
