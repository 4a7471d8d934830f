//! One build: what has changed, the tables that follow from it, and the moment at which all of them are put in force.

use crate::{
    Deps, Error, Event, Response,
    objects::{self, Listed, Numbered},
    parquet::{DividedWriter, TableWriter, processors, write_empty},
    segments::{self, Segments},
    side_by_side::side_by_side,
    spill::Spill,
};
use bytes::Bytes;
use jiff::Timestamp;
use parameters::tell;
use runtime::{Call, Metrics, Unit};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};
use storage::{Objects, sha256_hex};
use warehouse::{
    calendar::Calendar,
    dimension::{Difference, History, Members, Newest, UNKNOWN},
    fact::{self, Lookups},
    object,
    schema::{Dimension, Fact, Schema, Source, Table},
    surrogate::{are_unique, surrogate},
    table::{self, Shape},
    value::Value,
};
use warehouse_state::{
    BuildParameter, BuildRow, BuildState, BuiltObject, LINES, PAGE_KEY, Pending, QUARANTINE, REQUESTS, SCHEMA_KEY,
    SourceState, Standing, StandingError, StoredLines, Superseded, TablePart, TableState, build_parameter,
    build_state_key, manifest_key, members_key,
};

/// Readers may go on with an earlier location for this long. The contract says ten minutes.
const KEEP_SECONDS: i64 = 15 * 60;
/// Objects of a table that are copied side by side.
const COPIES: usize = 16;

/// A request of an operator to make tables anew; none named means all.
#[derive(Debug, Default, Deserialize)]
struct Request {
    #[serde(default)]
    tables: Vec<String>,
    /// Only what is made of objects from this time on.
    #[serde(default)]
    from: Option<Timestamp>,
}

pub async fn all(deps: &Deps, row: &BuildRow, event: &Event, call: &Call) -> Result<Response, Error> {
    let before = read_state(deps, row).await?;
    let (schema, schema_digest) = schema(deps).await?;
    let schema = Arc::new(schema);
    let requests = deps.warehouse.list(REQUESTS).await?;
    let forced = Forced::read(deps, &requests).await?;
    let plan = Plan::make(deps, &schema, &before, event, &forced).await?;
    let mut build = Build {
        deps,
        schema: &schema,
        before: &before,
        attempt: row.fence.attempt,
        segments: HashMap::new(),
        divided: HashSet::new(),
        members: HashMap::new(),
        differences: HashMap::new(),
        after: BuildState { schema: schema_digest, ..BuildState::default() },
    };
    let held = before.superseded.iter().filter(|old| old.until > call.now().as_second());
    build.after.superseded = held.cloned().collect();
    build.run(&plan).await?;
    // Before they are in force: what dies in between is built and told again.
    build.tell_gaps(&plan);
    build.publish(call.now()).await?;
    for key in &requests {
        deps.warehouse.delete(key).await?;
    }
    build.write_manifests().await?;
    build.report(&plan, call).await;
    publish(deps, &schema, &build.after.schema, call).await;
    build.remove_old().await?;
    Ok(Response::default())
}

/// Tells page and weekly mail of a build that failed, after it was noted.
pub async fn publish_failure(deps: &Deps, call: &Call) {
    // A file that cannot be read may be why, and then no source is known.
    let nothing = Schema { tables: Vec::new(), dimensions: Vec::new(), date_dimension: None, facts: Vec::new() };
    let (schema, schema_digest) = schema(deps).await.unwrap_or((nothing, String::new()));
    publish(deps, &schema, &schema_digest, call).await;
}

/// Writes the section that page and weekly mail show. Tables are in force, and failures are noted, without it.
async fn publish(deps: &Deps, schema: &Schema, schema_digest: &str, call: &Call) {
    if let Err(error) = write_section(deps, schema, schema_digest, call).await {
        tracing::warn!(error = errors::describe(&error), "the page could not be written");
    }
}

async fn write_section(deps: &Deps, schema: &Schema, schema_digest: &str, call: &Call) -> Result<(), StandingError> {
    let standing = Standing::read(&deps.rows, &deps.warehouse, schema).await?;
    let status = standing.status(schema, schema_digest, Pending::default(), &deps.warehouse);
    let section = reports::warehouse::section(&status).published(call.now());
    Ok(deps.archive.put_json(PAGE_KEY, &section).await?)
}

/// The schema file in force, and its sha256 in hex.
pub async fn schema(deps: &Deps) -> Result<(Schema, String), Error> {
    let uri = deps.warehouse.uri(SCHEMA_KEY);
    let text = deps.warehouse.find(SCHEMA_KEY).await?.ok_or(Error::SchemaMissing { uri })?;
    let schema = Schema::parse(&text).map_err(|problems| Error::SchemaInvalid { problems })?;
    Ok((schema, sha256_hex(&text)))
}

async fn read_state(deps: &Deps, row: &BuildRow) -> Result<BuildState, Error> {
    let Some(key) = &row.state else { return Ok(BuildState::default()) };
    let mut documents = deps.warehouse.get_lines::<BuildState>(key).await?;
    Ok(documents.pop().unwrap_or_default())
}

/// What is built anew although nothing changed.
struct Forced(Vec<Request>);

impl Forced {
    /// A request that cannot be read asks for everything: too much work is better than none.
    async fn read(deps: &Deps, requests: &[String]) -> Result<Forced, Error> {
        let mut forced = Vec::new();
        for key in requests {
            let text = deps.warehouse.find(key).await?.unwrap_or_default();
            forced.push(serde_json::from_slice(&text).unwrap_or_default());
        }
        Ok(Forced(forced))
    }

    /// Whether something of that name, made of these objects, is asked for; `None`: it is made of no objects.
    fn has(&self, name: &str, listed: Option<&[Listed]>) -> bool {
        self.0.iter().any(|request| {
            let is_named = request.tables.is_empty() || request.tables.iter().any(|table| table == name);
            is_named
                && request.from.is_none_or(|from| {
                    let from = from.as_microsecond();
                    let is_later = |object: &Listed| object.place.time.is_none_or(|time| time >= from);
                    listed.is_some_and(|listed| listed.iter().any(is_later))
                })
        })
    }
}

/// sha256 of what the schema file says of something. A program that reads files differently makes everything anew.
fn digest(of: &impl std::fmt::Debug) -> String {
    sha256_hex(format!("{of:?}").as_bytes())
}

fn dimension_digest(schema: &Schema, dimension: &Dimension) -> String {
    digest(&(dimension, &schema.tables[dimension.from]))
}

fn fact_digest(schema: &Schema, fact: &Fact) -> String {
    let dimensions: Vec<_> = fact.roles.iter().map(|role| &schema.dimensions[role.dimension]).collect();
    digest(&(fact, &schema.tables[fact.from], &schema.date_dimension, dimensions))
}

/// What there is to do. Positions are those of the schema.
struct Plan {
    /// The objects of each source.
    listed: Vec<Vec<Listed>>,
    /// Sources with objects that the last build has not seen, or read in another way.
    changed: BTreeSet<usize>,
    /// Sources of which stored lines are of no use.
    anew: BTreeSet<usize>,
    dimensions: Vec<usize>,
    /// What is made in any case. Others are where a dimension has got other members.
    facts: Vec<usize>,
    /// Names of dimensions and facts of which nothing is kept.
    whole: HashSet<String>,
    date: bool,
}

/// How a source differs from what the last build has read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    None,
    /// Objects came, and all others are as they were.
    Added,
    /// It is read from its first object on.
    Anew,
}

impl Plan {
    async fn make(
        deps: &Deps,
        schema: &Schema,
        before: &BuildState,
        event: &Event,
        forced: &Forced,
    ) -> Result<Plan, Error> {
        let (mut listed, mut changed, mut anew) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for (at, source) in schema.tables.iter().enumerate() {
            let found = match bucket(deps, source) {
                Some(bucket) => objects::list(source, bucket).await?,
                None => Vec::new(),
            };
            let landed = bucket(deps, source).map(|bucket| event.landed(bucket.bucket())).unwrap_or_default();
            let before = before.sources.get(&source.name);
            // While feeds are not deployed, nothing is known of their objects: what was built of them stays.
            let is_out_of_reach =
                bucket(deps, source).is_none() && before.is_some_and(|before| before.definition == digest(source));
            let change = if forced.has(&source.name, Some(&found)) {
                Change::Anew
            } else if is_out_of_reach {
                Change::None
            } else {
                change(source, before, &found, &landed)
            };
            if change != Change::None {
                changed.insert(at);
            }
            if change == Change::Anew {
                anew.insert(at);
            }
            listed.push(found);
        }
        let mut whole = HashSet::new();
        let mut is_whole = |name: &str, from: usize, definition: String| {
            let is_forced = forced.has(name, Some(&listed[from]));
            if is_forced {
                anew.insert(from);
            }
            let is_whole = is_forced || before.tables.get(name).is_none_or(|table| table.definition != definition);
            if is_whole {
                whole.insert(name.to_owned());
            }
            is_whole
        };
        let (mut dimensions, mut facts) = (Vec::new(), Vec::new());
        for (at, dimension) in schema.dimensions.iter().enumerate() {
            let name = table::dimension(schema, dimension).name;
            if is_whole(&name, dimension.from, dimension_digest(schema, dimension)) || changed.contains(&dimension.from)
            {
                dimensions.push(at);
            }
        }
        for (at, fact) in schema.facts.iter().enumerate() {
            let name = table::fact(schema, fact).name;
            if is_whole(&name, fact.from, fact_digest(schema, fact)) || changed.contains(&fact.from) {
                facts.push(at);
            }
        }
        let date = schema.date_dimension.as_ref().is_some_and(|date| {
            let name = table::date().name;
            forced.has(&name, None) || before.tables.get(&name).is_none_or(|table| table.definition != digest(date))
        });
        Ok(Plan { listed, changed, anew, dimensions, facts, whole, date })
    }
}

fn bucket<'a>(deps: &'a Deps, table: &Table) -> Option<&'a Objects> {
    match table.source {
        Source::Feed { .. } => deps.feeds.as_ref(),
        Source::Database | Source::Objects => Some(&deps.ingestion),
    }
}

fn change(
    table: &Table,
    before: Option<&SourceState>,
    listed: &[Listed],
    landed: &[(String, Option<String>)],
) -> Change {
    let Some(before) = before.filter(|before| before.definition == digest(table)) else { return Change::Anew };
    let seen: HashMap<_, _> = before.objects.iter().map(|built| (built.key.as_str(), built)).collect();
    let of = |object: &Listed| seen.get(object.place.key.as_str()).copied();
    let is_other = listed.iter().any(|object| of(object).is_some_and(|built| built.bytes != object.bytes))
        // Of an object that was put again only its tag tells whether the bytes are the same.
        || landed.iter().any(|(key, tag)| {
            seen.get(key.as_str()).is_some_and(|built| tag.as_ref().is_some_and(|tag| *tag != built.tag.trim_matches('"')))
        });
    let seen_again = listed.iter().filter(|object| of(object).is_some()).count();
    if is_other || seen_again < seen.len() || !before.failures.is_empty() {
        Change::Anew
    } else if seen_again == listed.len() {
        Change::None
    } else {
        Change::Added
    }
}

struct Build<'a> {
    deps: &'a Deps,
    schema: &'a Arc<Schema>,
    before: &'a BuildState,
    attempt: u64,
    /// Lines of sources, by position.
    segments: HashMap<usize, Arc<Segments>>,
    /// Sources whose segments are others than in the last build, by position.
    divided: HashSet<usize>,
    /// Of dimensions, by position.
    members: HashMap<usize, Arc<Members>>,
    /// Of the members of dimensions that were made, by position.
    differences: HashMap<usize, Difference>,
    after: BuildState,
}

impl Build<'_> {
    async fn run(&mut self, plan: &Plan) -> Result<(), Error> {
        for at in &plan.changed {
            self.read(plan, *at).await?;
        }
        for at in 0..self.schema.dimensions.len() {
            self.dimension(plan, at).await?;
        }
        let calendar = self.schema.date_dimension.as_ref().map(|date| Arc::new(Calendar::new(date)));
        if let Some(calendar) = &calendar {
            self.dates(plan, calendar).await?;
        }
        for at in 0..self.schema.facts.len() {
            self.fact(plan, at, calendar.clone()).await?;
        }
        for (at, source) in self.schema.tables.iter().enumerate() {
            if !self.segments.contains_key(&at) {
                // Not changed, so that there is a state.
                let state = self.before.sources.get(&source.name).cloned().unwrap_or_default();
                self.after.sources.insert(source.name.clone(), state);
            }
        }
        self.forget_parts();
        Ok(())
    }

    /// Tables that stayed where they are, while their source was divided anew, are not made of its segments.
    fn forget_parts(&mut self) {
        let schema = self.schema;
        let dimensions = schema.dimensions.iter().map(|of| (table::dimension(schema, of).name, of.from));
        for (name, from) in dimensions.chain(schema.facts.iter().map(|of| (table::fact(schema, of).name, of.from))) {
            let before = self.before.tables.get(&name);
            if self.divided.contains(&from)
                && let Some(table) = self.after.tables.get_mut(&name)
                && before.is_some_and(|before| before.prefix == table.prefix)
            {
                table.parts.clear();
            }
        }
    }

    /// The lines of a source, which are read at most once in a build.
    async fn read(&mut self, plan: &Plan, at: usize) -> Result<Arc<Segments>, Error> {
        if let Some(segments) = self.segments.get(&at) {
            return Ok(segments.clone());
        }
        let source = &self.schema.tables[at];
        let needs_all = self.schema.dimensions.iter().any(|dimension| dimension.from == at && dimension.is_type2());
        let before = self.before.sources.get(&source.name).filter(|_| !plan.anew.contains(&at));
        let stored = before.and_then(|before| Some((before, before.lines.as_ref()?)));
        let found = match stored.filter(|(_, lines)| segments::are_usable(lines, needs_all)) {
            Some((before, lines)) if plan.changed.contains(&at) => self.extend(plan, at, before, lines).await?,
            Some((before, lines)) => {
                let positions = positions(&before.objects);
                Some((Segments::stored(&self.deps.warehouse, &lines.segments, positions), before.clone()))
            }
            None => None,
        };
        let (segments, mut state) = match found {
            Some(found) => found,
            None => {
                self.divided.insert(at);
                self.divide(plan, at).await?
            }
        };
        let segments = Arc::new(segments);
        state.definition = digest(source);
        if source.sequential {
            let ids = plan.listed[at].iter().filter_map(|object| object.place.id());
            state.gaps = object::gaps(ids).into_iter().map(|gap| (*gap.start(), *gap.end())).collect();
        }
        // As long as an object cannot be read, every build reads all of them.
        state.lines = None;
        if state.failures.is_empty() {
            state.lines = Some(self.store(&source.name, &segments, needs_all).await?);
        }
        self.after.sources.insert(source.name.clone(), state);
        self.segments.insert(at, segments.clone());
        Ok(segments)
    }

    /// All lines of a source, from its first object on.
    async fn divide(&self, plan: &Plan, at: usize) -> Result<(Segments, SourceState), Error> {
        let (source, warehouse, bytes) = (&self.schema.tables[at], &self.deps.warehouse, self.deps.segment_bytes);
        let (mut state, listed) = (SourceState::default(), &plan.listed[at]);
        let spill = match bucket(self.deps, source) {
            Some(bucket) => {
                let objects = (0..).zip(listed.iter().cloned()).map(|(number, listed)| Numbered { number, listed });
                let mut objects: Vec<_> = objects.collect();
                // Half of an object is in no table: where one breaks off the others are read without it.
                loop {
                    let read = objects::read(source, objects.clone(), bucket, warehouse, self.attempt, bytes).await?;
                    let (whole, broken): (Vec<_>, Vec<_>) = read.objects.into_iter().partition(|read| read.end.is_ok());
                    if broken.is_empty() {
                        objects::note(&mut state, whole, read.quarantine);
                        break read.spill;
                    }
                    let failed = broken.iter().filter_map(|read| read.end.as_ref().err());
                    let failed: HashSet<_> = failed.map(|failure| failure.object.as_str()).collect();
                    objects.retain(|object| !failed.contains(object.listed.place.key.as_str()));
                    objects::note(&mut state, broken, None);
                    if let Some(key) = read.quarantine {
                        warehouse.delete(&key).await?;
                    }
                }
            }
            None => Spill::new(0, bytes)?,
        };
        Ok((Segments::divide(warehouse, spill, listed.len(), bytes)?, state))
    }

    /// The lines of the last build and those that came. `None`: all have to be read.
    async fn extend(
        &self,
        plan: &Plan,
        at: usize,
        before: &SourceState,
        lines: &StoredLines,
    ) -> Result<Option<(Segments, SourceState)>, Error> {
        let (source, warehouse, bytes) = (&self.schema.tables[at], &self.deps.warehouse, self.deps.segment_bytes);
        let Some(bucket) = bucket(self.deps, source) else { return Ok(None) };
        let seen: HashSet<_> = before.objects.iter().map(|built| built.key.as_str()).collect();
        let new = plan.listed[at].iter().filter(|object| !seen.contains(object.place.key.as_str()));
        let next = before.objects.iter().map(|built| built.number + 1).max().unwrap_or(0);
        let objects: Vec<_> = (next..).zip(new.cloned()).map(|(number, listed)| Numbered { number, listed }).collect();
        if !segments::is_load(objects.iter().map(|object| object.listed.bytes).sum(), bytes) {
            return Ok(None);
        }
        let read = objects::read(source, objects, bucket, warehouse, self.attempt, bytes).await?;
        if read.objects.iter().any(|object| object.end.is_err()) {
            return Ok(None);
        }
        let mut state = before.clone();
        objects::note(&mut state, read.objects, read.quarantine);
        let positions = positions(&state.objects);
        let extended = Segments::extend(warehouse, &lines.segments, &read.spill, positions, bytes).await?;
        Ok(extended.map(|segments| (segments, state)))
    }

    /// Puts lines where the next build finds them.
    async fn store(&self, table: &str, segments: &Arc<Segments>, has_all: bool) -> Result<StoredLines, Error> {
        let stored = side_by_side(0..segments.len(), processors(), |at| {
            let (segments, table, attempt) = (segments.clone(), table.to_owned(), self.attempt);
            async move { segments.store(at, &table, attempt, has_all).await }
        });
        Ok(segments::stored_lines(stored.await?.into_values().collect(), has_all))
    }

    /// What can stay of a table of the last build: a part for each of its source's first segments.
    fn kept(&self, plan: &Plan, name: &str, from: usize) -> Option<&TableState> {
        let is_kept = !plan.whole.contains(name) && !self.divided.contains(&from);
        self.before.tables.get(name).filter(|table| is_kept && !table.parts.is_empty())
    }

    /// The parts of a table whose others are made: these are copied to its new prefix.
    async fn complete(
        &self,
        kept: Option<&TableState>,
        prefix: &str,
        mut made: BTreeMap<usize, TablePart>,
    ) -> Result<Vec<TablePart>, Error> {
        if let Some(kept) = kept {
            let stay = kept.parts.iter().enumerate().filter(|(at, _)| !made.contains_key(at));
            let stay: Vec<_> = stay.map(|(at, part)| (at, part.clone())).collect();
            let names: Vec<&String> = stay.iter().flat_map(|(_, part)| &part.objects).collect();
            side_by_side(0..names.len(), COPIES, |at| {
                let (warehouse, name) = (self.deps.warehouse.clone(), names[at]);
                let (from, to) = (format!("{}{name}", kept.prefix), format!("{prefix}{name}"));
                async move { Ok(warehouse.copy(&from, &to).await?) }
            })
            .await?;
            made.extend(stay);
        }
        Ok(made.into_values().collect())
    }

    async fn dimension(&mut self, plan: &Plan, at: usize) -> Result<(), Error> {
        let dimension = &self.schema.dimensions[at];
        let shape = table::dimension(self.schema, dimension);
        if !plan.dimensions.contains(&at) {
            self.keep(&shape);
            return Ok(());
        }
        let segments = self.read(plan, dimension.from).await?;
        let mut kept = self.kept(plan, &shape.name, dimension.from).cloned();
        let before = match self.before.tables.get(&shape.name).and_then(|table| table.members.as_ref()) {
            Some(key) => self.deps.warehouse.find(key).await?.map(|found| (key, found)),
            None => None,
        };
        if before.is_none() {
            kept = None;
        }
        let mut salt = kept.as_ref().map_or(0, |table| table.salt);
        let (prefix, made, members) = loop {
            let of_before = kept.as_ref().map_or(0, |table| table.parts.len());
            let wanted: Vec<usize> =
                (0..segments.len()).filter(|at| *at >= of_before || segments.is_changed(*at)).collect();
            if wanted.is_empty() {
                self.keep(&shape);
                return Ok(());
            }
            let prefix = format!("{}/{:010}-{salt}/", shape.name, self.attempt);
            let written = side_by_side(wanted, processors(), |segment| {
                let writer = TableWriter::new(&shape, &self.deps.warehouse, prefix.clone(), segment);
                write_members(self.schema.clone(), at, segments.clone(), writer, segment, salt)
            });
            let (mut made, mut newer) = (BTreeMap::new(), Members::default());
            for (segment, (part, found)) in written.await? {
                made.insert(segment, part);
                newer.append(found);
            }
            newer.seal();
            let mut members = match (&kept, &before) {
                (Some(_), Some((_, bytes))) => Members::from_bytes(bytes),
                _ => Members::default(),
            };
            members.replace(newer);
            members.seal();
            if are_unique(&mut members.surrogates().collect::<Vec<_>>()) {
                break (prefix, made, members);
            }
            // Two of them have one surrogate key.
            salt += 1;
            kept = None;
        };
        let parts = self.complete(kept.as_ref(), &prefix, made).await?;
        let difference = match &before {
            Some((_, bytes)) => Difference::between(&Members::from_bytes(bytes), &members),
            None => Difference::ALL,
        };
        let key = self.keep_members(&shape, &members, before).await?;
        self.members.insert(at, Arc::new(members));
        self.differences.insert(at, difference);
        let definition = dimension_digest(self.schema, dimension);
        let rows = parts.iter().map(|part| part.rows).sum();
        let unknown = BTreeMap::new();
        let table = TableState { definition, rows, prefix, members: Some(key), unknown, parts, salt };
        self.after.tables.insert(shape.name, table);
        Ok(())
    }

    /// Puts the members where facts of later builds find them; where they are those of the last build they stay.
    async fn keep_members(
        &self,
        shape: &Shape,
        members: &Members,
        before: Option<(&String, Bytes)>,
    ) -> Result<String, Error> {
        let bytes = members.to_bytes();
        if let Some((key, found)) = before
            && found == bytes
        {
            return Ok(key.clone());
        }
        let key = members_key(&shape.name, self.attempt);
        self.deps.warehouse.put(&key, bytes, "application/octet-stream").await?;
        Ok(key)
    }

    async fn dates(&mut self, plan: &Plan, calendar: &Calendar) -> Result<(), Error> {
        let shape = table::date();
        if !plan.date {
            self.keep(&shape);
            return Ok(());
        }
        let prefix = format!("{}/{:010}/", shape.name, self.attempt);
        let mut writer = TableWriter::new(&shape, &self.deps.warehouse, prefix.clone(), 0)?;
        for row in calendar.rows() {
            writer.push(row).await?;
        }
        let rows = writer.finish().await?.rows;
        let definition = self.schema.date_dimension.as_ref().map(digest).unwrap_or_default();
        let (unknown, parts) = (BTreeMap::new(), Vec::new());
        let table = TableState { definition, rows, prefix, members: None, unknown, parts, salt: 0 };
        self.after.tables.insert(shape.name, table);
        Ok(())
    }

    async fn fact(&mut self, plan: &Plan, at: usize, calendar: Option<Arc<Calendar>>) -> Result<(), Error> {
        let fact = &self.schema.facts[at];
        let shape = table::fact(self.schema, fact);
        let difference = |dimension| self.differences.get(&dimension).copied().unwrap_or_default();
        let differences: Vec<Difference> = fact.roles.iter().map(|role| difference(role.dimension)).collect();
        if !plan.facts.contains(&at) && differences.iter().all(|difference| *difference == Difference::default()) {
            self.keep(&shape);
            return Ok(());
        }
        let segments = self.read(plan, fact.from).await?;
        let kept = self.kept(plan, &shape.name, fact.from).cloned();
        let first = self.schema.tables[fact.from].key.len();
        let references = shape.columns[first..first + fact.roles.len() + fact.dates.len()].iter();
        let references: Arc<[String]> = references.map(|column| column.name.clone()).collect();
        let stays = |at: usize| {
            let part = kept.as_ref().and_then(|table| table.parts.get(at)).filter(|_| !segments.is_changed(at));
            part.is_some_and(|part| {
                let mut roles = differences.iter().zip(references.iter());
                !roles.any(|(difference, name)| difference.concerns(part.unknown.contains_key(name), part.latest))
            })
        };
        let wanted: Vec<usize> = (0..segments.len()).filter(|at| !stays(*at)).collect();
        if wanted.is_empty() {
            self.keep(&shape);
            return Ok(());
        }
        for role in &fact.roles {
            self.load_members(role.dimension).await?;
        }
        let prefix = format!("{}/{:010}/", shape.name, self.attempt);
        let members: Vec<_> = (0..self.schema.dimensions.len()).map(|at| self.members.get(&at).cloned()).collect();
        let made = side_by_side(wanted, processors(), |segment| {
            let writer = DividedWriter::new(&shape, &self.deps.warehouse, &prefix, segment);
            let lookups = Lookups { members: members.clone(), calendar: calendar.clone() };
            write_facts(self.schema.clone(), at, segments.clone(), lookups, writer, segment, references.clone())
        });
        let parts = self.complete(kept.as_ref(), &prefix, made.await?).await?;
        let (rows, mut unknown) = (parts.iter().map(|part| part.rows).sum(), BTreeMap::new());
        for (name, count) in parts.iter().flat_map(|part| &part.unknown) {
            *unknown.entry(name.clone()).or_default() += count;
        }
        if rows == 0 {
            // As a row without a date, so that readers find the column that a folder's name makes, too.
            let below = fact::partition(self.schema, fact, &[]);
            write_empty(&shape, &self.deps.warehouse, &format!("{prefix}{below}")).await?;
        }
        let definition = fact_digest(self.schema, fact);
        let table = TableState { definition, rows, prefix, members: None, unknown, parts, salt: 0 };
        self.after.tables.insert(shape.name, table);
        Ok(())
    }

    /// The members of a dimension that this build did not make.
    async fn load_members(&mut self, at: usize) -> Result<(), Error> {
        if self.members.contains_key(&at) {
            return Ok(());
        }
        let name = table::dimension(self.schema, &self.schema.dimensions[at]).name;
        let members = match self.before.tables.get(&name).and_then(|table| table.members.as_ref()) {
            Some(key) => Members::from_bytes(&self.deps.warehouse.get(key).await?),
            None => Members::default(),
        };
        self.members.insert(at, Arc::new(members));
        Ok(())
    }

    /// A table that stays as it is.
    fn keep(&mut self, shape: &Shape) {
        if let Some(table) = self.before.tables.get(&shape.name) {
            self.after.tables.insert(shape.name.clone(), table.clone());
        }
    }

    /// Puts all tables in force with one write to the build's row.
    async fn publish(&mut self, now: Timestamp) -> Result<(), Error> {
        let until = now.as_second() + KEEP_SECONDS;
        for (name, old) in &self.before.tables {
            if self.after.tables.get(name).is_none_or(|new| new.prefix != old.prefix) {
                let prefixes = [Some(old.prefix.clone()), old.members.clone()].into_iter().flatten();
                self.after.superseded.extend(prefixes.map(|prefix| Superseded { prefix, until }));
            }
        }
        let is_same = self.segments.is_empty() && self.after.tables == self.before.tables;
        let is_same = is_same && self.after.schema == self.before.schema;
        let key = build_state_key(self.attempt);
        if !is_same {
            self.deps.warehouse.put_lines(&key, std::slice::from_ref(&self.after)).await?;
        }
        let row = self.deps.rows.change_build(self.attempt, |row| BuildRow {
            fence: row.fence.end(now),
            state: if is_same { row.state } else { Some(key.clone()) },
            failure: None,
            ..row
        });
        row.await?;
        Ok(())
    }

    /// Names the objects of each table where Athena and Spark look for them. A later build may be at it already: then
    /// its lists are the right ones.
    async fn write_manifests(&self) -> Result<(), Error> {
        let warehouse = &self.deps.warehouse;
        for (name, table) in &self.after.tables {
            let key = manifest_key(name);
            let uris: Vec<String> = warehouse.list(&table.prefix).await?.iter().map(|key| warehouse.uri(key)).collect();
            let body = Bytes::from(uris.join("\n") + "\n");
            let found = warehouse.find_versioned(&key).await?;
            if found.as_ref().is_some_and(|(before, _)| *before == body) {
                continue;
            }
            if !self.is_in_force().await? {
                return Ok(());
            }
            match found {
                // Refused where another build was quicker.
                Some((_, tag)) => {
                    warehouse.replace(&key, body, "text/plain", &tag).await?;
                }
                None => {
                    warehouse.put_once(&key, body, "text/plain").await?;
                }
            }
        }
        Ok(())
    }

    /// No later build has begun.
    async fn is_in_force(&self) -> Result<bool, Error> {
        Ok(self.deps.rows.build().await?.is_some_and(|row| row.fence.attempt == self.attempt))
    }

    /// Ids that are missing: each change of them is one warning.
    fn tell_gaps(&self, plan: &Plan) {
        for at in &plan.changed {
            let source = &self.schema.tables[*at];
            let Some(state) = self.after.sources.get(&source.name) else { continue };
            let before = self.before.sources.get(&source.name);
            if !state.gaps.is_empty() && before.is_none_or(|before| before.gaps != state.gaps) {
                let ids = format!("{:?}", state.gaps);
                tracing::warn!(name = "SequenceGap", table = source.name, ids, "SequenceGap: objects are missing");
            }
            let missing = state.gaps.iter().map(|(from, to)| to - from + 1).sum();
            Metrics::new()
                .dimension("Function", "build-warehouse")
                .property("Table", &source.name)
                .figure("SequenceGaps", Unit::Count, missing)
                .write();
        }
    }

    /// Figures of each source that was read: a log line, metrics, and its parameter.
    async fn report(&self, plan: &Plan, call: &Call) {
        for at in &plan.changed {
            let source = &self.schema.tables[*at];
            let Some(state) = self.after.sources.get(&source.name) else { continue };
            Metrics::new()
                .dimension("Function", "build-warehouse")
                .property("Table", &source.name)
                .duration("Duration", call.took())
                .figure("Rows", Unit::Count, state.rows)
                .figure("Objects", Unit::Count, state.objects.len() as u64)
                .figure("Quarantined", Unit::Count, state.quarantined)
                .figure("FailedObjects", Unit::Count, state.failures.len() as u64)
                .write();
            let latest = state.objects.last().map(|object| object.key.as_str());
            let id = state.objects.iter().filter_map(|built| object::Place::of(&built.key).id()).max();
            let parameter = BuildParameter {
                latest_object: latest.map(str::to_owned),
                sequential_id: id.unwrap_or(0),
                rows: state.rows,
                built_at: call.now(),
            };
            let name = build_parameter(&self.deps.parameter_prefix, &source.name);
            // It tells others and decides nothing, so that the tables stay in force without it.
            if let Err(error) = tell(self.deps.parameters.as_ref(), &name, &parameter).await {
                tracing::warn!(
                    table = source.name,
                    error = errors::describe(&error),
                    "the parameter could not be written"
                );
            }
        }
        for (name, table) in &self.after.tables {
            if self.before.tables.get(name) != Some(table) {
                tracing::info!(table = name, rows = table.rows, prefix = table.prefix, "built");
            }
        }
    }

    /// Removes what no reader may have open any more, and what attempts that died have left. Keys have the number of
    /// their attempt: those of later ones, which may be at work already, are left alone.
    async fn remove_old(&self) -> Result<(), Error> {
        let tables = self.after.tables.values();
        let current = tables.flat_map(|table| [Some(table.prefix.as_str()), table.members.as_deref()]).flatten();
        let kept: HashSet<&str> = current.chain(self.after.superseded.iter().map(|old| old.prefix.as_str())).collect();
        let names = self.after.tables.keys().chain(self.before.tables.keys()).map(String::as_str);
        // Also tables that left the schema file some builds ago.
        let names = names.chain(self.before.superseded.iter().filter_map(|old| table_of(&old.prefix)));
        for table in names.collect::<BTreeSet<_>>() {
            let prefix = format!("{table}/");
            self.remove_earlier(&prefix, &kept).await?;
            self.remove_earlier(&format!("_state/members/{table}/"), &kept).await?;
            let is_gone = !self.after.tables.contains_key(table) && !kept.iter().any(|kept| kept.starts_with(&prefix));
            if is_gone && self.is_in_force().await? {
                self.deps.warehouse.delete(&manifest_key(table)).await?;
            }
        }
        let read = self.segments.keys().map(|at| &self.schema.tables[*at].name);
        let gone = self.before.sources.keys().filter(|name| !self.after.sources.contains_key(*name));
        for name in read.chain(gone) {
            let state = self.after.sources.get(name);
            let quarantine = state.into_iter().flat_map(|state| &state.quarantine).map(String::as_str).collect();
            self.remove_earlier(&format!("{QUARANTINE}{name}/"), &quarantine).await?;
            let segments = state.and_then(|state| state.lines.as_ref()).into_iter().flat_map(|lines| &lines.segments);
            let segments = segments.map(|segment| segment.key.as_str()).collect();
            self.remove_earlier(&format!("{LINES}{name}/"), &segments).await?;
        }
        let state = self.deps.rows.build().await?.and_then(|row| row.state).unwrap_or_default();
        self.remove_earlier("_state/build/", &HashSet::from([state.as_str()])).await
    }

    async fn remove_earlier(&self, prefix: &str, kept: &HashSet<&str>) -> Result<(), Error> {
        let own = format!("{prefix}{:010}", self.attempt);
        for key in self.deps.warehouse.list(prefix).await? {
            if key < own && !kept.iter().any(|kept| key.starts_with(kept)) {
                self.deps.warehouse.delete(&key).await?;
            }
        }
        Ok(())
    }
}

/// The table that a superseded prefix belongs to. `None`: it is the key of members.
fn table_of(prefix: &str) -> Option<&str> {
    prefix.split('/').next().filter(|name| !name.starts_with('_'))
}

/// The place of each object among all of its table, by number.
fn positions(objects: &[BuiltObject]) -> Vec<u32> {
    let count = objects.iter().map(|object| object.number as usize + 1).max().unwrap_or(0);
    let mut positions = vec![0; count];
    for (position, object) in (0..).zip(objects) {
        positions[object.number as usize] = position;
    }
    positions
}

/// Writes the rows of a dimension that one segment makes; returns their members, too. The members that every dimension
/// has stand with those of the first segment.
async fn write_members(
    schema: Arc<Schema>,
    at: usize,
    segments: Arc<Segments>,
    writer: Result<TableWriter, Error>,
    segment: usize,
    salt: u32,
) -> Result<(TablePart, Members), Error> {
    let (dimension, mut writer) = (&schema.dimensions[at], writer?);
    if segment == 0 {
        for row in table::special_members(&schema, dimension) {
            writer.push(row).await?;
        }
    }
    let mut members = Members::default();
    for key in segments.part(segment).await?.keys() {
        let mut history = History::new(dimension);
        for change in key.changes() {
            let (change, object_time) = change?;
            history.push(change, object_time);
        }
        for version in history.finish() {
            let begin = if dimension.is_type2() { version.valid_from } else { 0 };
            let surrogate = surrogate(key.identity, begin, salt);
            members.push(key.identity, begin, surrogate);
            writer.push(table::dimension_row(&schema, dimension, version, surrogate)).await?;
        }
    }
    let written = writer.finish().await?;
    let part = TablePart { objects: written.objects, rows: written.rows, ..TablePart::default() };
    Ok((part, members))
}

/// Writes the rows of a fact that one segment makes. `references`: the names of the keys of members and dates.
async fn write_facts(
    schema: Arc<Schema>,
    at: usize,
    segments: Arc<Segments>,
    lookups: Lookups,
    mut writer: DividedWriter,
    segment: usize,
    references: Arc<[String]>,
) -> Result<TablePart, Error> {
    let fact = &schema.facts[at];
    let first = schema.tables[fact.from].key.len();
    let (mut unknown, mut latest) = (vec![0_u64; references.len()], None);
    for key in segments.part(segment).await?.keys() {
        let mut newest: Option<Newest> = None;
        for change in key.changes() {
            let (change, _) = change?;
            match &mut newest {
                None => newest = Some(Newest::first(change)),
                Some(newest) => newest.apply(change),
            }
        }
        let Some(newest) = newest else { continue };
        latest = latest.max(fact::as_of(fact, &newest));
        let row = fact::row(&schema, fact, newest, &lookups);
        for (count, value) in unknown.iter_mut().zip(&row[first..]) {
            let is_unknown = matches!(value, Value::Bigint(UNKNOWN) | Value::Integer(-1));
            *count += u64::from(is_unknown);
        }
        writer.push(fact::partition(&schema, fact, &row), row).await?;
    }
    let written = writer.finish().await?;
    let unknown = references.iter().cloned().zip(unknown).filter(|(_, count)| *count > 0).collect();
    Ok(TablePart { objects: written.objects, rows: written.rows, unknown, latest })
}
