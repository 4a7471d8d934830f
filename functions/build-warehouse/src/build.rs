//! One build: what has changed, the tables that follow from it, and the moment at which all of them are put in force.

use crate::{
    Deps, Error, Event, Response,
    objects::{self, Listed},
    parquet::{DividedWriter, Share, TableWriter, write_empty},
    spill::Spill,
};
use bytes::Bytes;
use jiff::Timestamp;
use runtime::{Call, Metrics, Unit};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};
use storage::{Objects, sha256_hex};
use tokio::task::JoinSet;
use warehouse::{
    calendar::Calendar,
    dimension::{History, Members, Newest, UNKNOWN},
    fact::{self, Lookups},
    object,
    schema::{Dimension, Fact, Schema, Source, Table},
    surrogate::{are_unique, surrogate},
    table::{self, Shape},
    value::Value,
};
use warehouse_state::{
    BuildParameter, BuildRow, BuildState, PAGE_KEY, Pending, QUARANTINE, REQUESTS, SCHEMA_KEY, SourceState, Standing,
    StandingError, Superseded, TableState, build_parameter, build_state_key, manifest_key, members_key, tell,
};

/// Readers may go on with an earlier location for this long. The contract says ten minutes.
const KEEP_SECONDS: i64 = 15 * 60;

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
        spills: HashMap::new(),
        members: HashMap::new(),
        after: BuildState { schema: schema_digest, ..BuildState::default() },
    };
    let held = before.superseded.iter().filter(|old| old.until > call.now().as_second());
    build.after.superseded = held.cloned().collect();
    build.run(&plan).await?;
    build.publish(call.now()).await?;
    for key in &requests {
        deps.warehouse.delete(key).await?;
    }
    build.write_manifests().await?;
    build.report(&plan, call).await;
    // The tables are in force without it.
    if let Err(error) = publish(deps, &schema, &build.after.schema, call).await {
        tracing::warn!(error = errors::describe(&error), "the page could not be written");
    }
    build.remove_old().await?;
    Ok(Response::default())
}

/// Writes the section that page and weekly mail show.
async fn publish(deps: &Deps, schema: &Schema, schema_digest: &str, call: &Call) -> Result<(), StandingError> {
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
    dimensions: Vec<usize>,
    /// What is made anew in any case. Others are where a dimension has got other members.
    facts: Vec<usize>,
    date: bool,
}

impl Plan {
    async fn make(
        deps: &Deps,
        schema: &Schema,
        before: &BuildState,
        event: &Event,
        forced: &Forced,
    ) -> Result<Plan, Error> {
        let (mut listed, mut changed) = (Vec::new(), BTreeSet::new());
        for (at, source) in schema.tables.iter().enumerate() {
            let found = match bucket(deps, source) {
                Some(bucket) => objects::list(source, bucket).await?,
                None => Vec::new(),
            };
            let landed = bucket(deps, source).map(|bucket| event.landed(bucket.bucket())).unwrap_or_default();
            if forced.has(&source.name, Some(&found))
                || is_changed(source, before.sources.get(&source.name), &found, &landed)
            {
                changed.insert(at);
            }
            listed.push(found);
        }
        let is_new = |name: &str, from: Option<usize>, definition: String| {
            let listed = from.map(|from| listed[from].as_slice());
            forced.has(name, listed) || before.tables.get(name).is_none_or(|table| table.definition != definition)
        };
        let dimensions: Vec<usize> = (0..schema.dimensions.len())
            .filter(|at| {
                let dimension = &schema.dimensions[*at];
                let name = table::dimension(schema, dimension).name;
                changed.contains(&dimension.from)
                    || is_new(&name, Some(dimension.from), dimension_digest(schema, dimension))
            })
            .collect();
        let facts = (0..schema.facts.len()).filter(|at| {
            let fact = &schema.facts[*at];
            changed.contains(&fact.from)
                || is_new(&table::fact(schema, fact).name, Some(fact.from), fact_digest(schema, fact))
        });
        let facts = facts.collect();
        let date = schema.date_dimension.as_ref().is_some_and(|date| is_new(&table::date().name, None, digest(date)));
        Ok(Plan { listed, changed, dimensions, facts, date })
    }
}

fn bucket<'a>(deps: &'a Deps, table: &Table) -> Option<&'a Objects> {
    match table.source {
        Source::Feed { .. } => deps.feeds.as_ref(),
        Source::Database | Source::Objects => Some(&deps.ingestion),
    }
}

/// Whether there is an object that the last build has not read as it is now.
fn is_changed(
    table: &Table,
    before: Option<&SourceState>,
    listed: &[Listed],
    landed: &[(String, Option<String>)],
) -> bool {
    let Some(before) = before.filter(|before| before.definition == digest(table)) else { return true };
    let seen: HashMap<_, _> = before.objects.iter().map(|built| (built.key.as_str(), built)).collect();
    listed.iter().any(|object| seen.get(object.place.key.as_str()).is_none_or(|built| built.bytes != object.bytes))
        // Of an object that was put again only its tag tells whether the bytes are the same.
        || landed.iter().any(|(key, tag)| {
            seen.get(key.as_str()).is_some_and(|built| tag.as_ref().is_some_and(|tag| *tag != built.tag.trim_matches('"')))
        })
}

struct Build<'a> {
    deps: &'a Deps,
    schema: &'a Arc<Schema>,
    before: &'a BuildState,
    attempt: u64,
    /// Lines of sources, by position.
    spills: HashMap<usize, Arc<Spill>>,
    /// Of dimensions, by position.
    members: HashMap<usize, Arc<Members>>,
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
            if !self.spills.contains_key(&at) {
                // Not changed, so that there is a state.
                let state = self.before.sources.get(&source.name).cloned().unwrap_or_default();
                self.after.sources.insert(source.name.clone(), state);
            }
        }
        Ok(())
    }

    /// The lines of a source; each is read once in a build.
    async fn read(&mut self, plan: &Plan, at: usize) -> Result<Arc<Spill>, Error> {
        if let Some(spill) = self.spills.get(&at) {
            return Ok(spill.clone());
        }
        let (source, listed) = (&self.schema.tables[at], &plan.listed[at]);
        let (spill, mut state) = match bucket(self.deps, source) {
            Some(bucket) => objects::read(source, listed, bucket, &self.deps.warehouse, self.attempt).await?,
            None => (Spill::new(0)?, SourceState::default()),
        };
        state.definition = digest(source);
        if source.sequential {
            let ids = listed.iter().filter_map(|object| object.place.id());
            state.gaps = object::gaps(ids).into_iter().map(|gap| (*gap.start(), *gap.end())).collect();
        }
        self.after.sources.insert(source.name.clone(), state);
        let spill = Arc::new(spill);
        self.spills.insert(at, spill.clone());
        Ok(spill)
    }

    async fn dimension(&mut self, plan: &Plan, at: usize) -> Result<(), Error> {
        let dimension = &self.schema.dimensions[at];
        let shape = table::dimension(self.schema, dimension);
        if !plan.dimensions.contains(&at) {
            self.keep(&shape);
            return Ok(());
        }
        let spill = self.read(plan, dimension.from).await?;
        let mut salt = 0;
        let (prefix, rows, members) = loop {
            let prefix = format!("{}/{:010}-{salt}/", shape.name, self.attempt);
            let made = self.members_of(at, &spill, &shape, &prefix, salt).await?;
            if let Some((rows, members)) = made {
                break (prefix, rows, members);
            }
            salt += 1;
        };
        let key = self.keep_members(&shape, &members).await?;
        self.members.insert(at, Arc::new(members));
        let definition = dimension_digest(self.schema, dimension);
        let table = TableState { definition, rows, prefix, members: Some(key), unknown: BTreeMap::new() };
        self.after.tables.insert(shape.name, table);
        Ok(())
    }

    /// Writes a dimension's table; returns its rows and its members. `None`: two of them have one surrogate key.
    async fn members_of(
        &self,
        at: usize,
        spill: &Arc<Spill>,
        shape: &Shape,
        prefix: &str,
        salt: u32,
    ) -> Result<Option<(u64, Members)>, Error> {
        let mut shares = Shares::default();
        for share in Share::all(spill.parts()) {
            let writer = TableWriter::new(shape, &self.deps.warehouse, prefix.to_owned(), share)?;
            shares.0.spawn(write_members(self.schema.clone(), at, spill.clone(), writer, share, salt));
        }
        let (mut rows, mut members, mut surrogates) = (0, Members::default(), Vec::new());
        while let Some((written, found)) = shares.next().await? {
            rows += written;
            surrogates.extend(found.surrogates());
            members.append(found);
        }
        members.seal();
        Ok(are_unique(&mut surrogates).then_some((rows, members)))
    }

    /// Puts the members where facts of later builds find them. Where they are those of the last build they stay at their
    /// key, by which the facts know that their members have not changed.
    async fn keep_members(&self, shape: &Shape, members: &Members) -> Result<String, Error> {
        let bytes = members.to_bytes();
        if let Some(before) = self.before.tables.get(&shape.name).and_then(|table| table.members.as_ref())
            && self.deps.warehouse.find(before).await?.is_some_and(|found| found == bytes)
        {
            return Ok(before.clone());
        }
        let key = members_key(&shape.name, self.attempt);
        self.deps.warehouse.put(&key, bytes, "application/octet-stream").await?;
        Ok(key)
    }

    /// Whether a dimension has other members than in the last build.
    fn has_other_members(&self, at: usize) -> bool {
        let name = table::dimension(self.schema, &self.schema.dimensions[at]).name;
        let members = |tables: &BTreeMap<String, TableState>| tables.get(&name).and_then(|table| table.members.clone());
        members(&self.before.tables) != members(&self.after.tables)
    }

    async fn dates(&mut self, plan: &Plan, calendar: &Calendar) -> Result<(), Error> {
        let shape = table::date();
        if !plan.date {
            self.keep(&shape);
            return Ok(());
        }
        let prefix = format!("{}/{:010}/", shape.name, self.attempt);
        let mut writer = TableWriter::new(&shape, &self.deps.warehouse, prefix.clone(), Share::ALL)?;
        for row in calendar.rows() {
            writer.push(row).await?;
        }
        let rows = writer.finish().await?;
        let definition = self.schema.date_dimension.as_ref().map(digest).unwrap_or_default();
        let table = TableState { definition, rows, prefix, members: None, unknown: BTreeMap::new() };
        self.after.tables.insert(shape.name, table);
        Ok(())
    }

    async fn fact(&mut self, plan: &Plan, at: usize, calendar: Option<Arc<Calendar>>) -> Result<(), Error> {
        let fact = &self.schema.facts[at];
        let shape = table::fact(self.schema, fact);
        if !plan.facts.contains(&at) && !fact.roles.iter().any(|role| self.has_other_members(role.dimension)) {
            self.keep(&shape);
            return Ok(());
        }
        let spill = self.read(plan, fact.from).await?;
        for role in &fact.roles {
            self.load_members(role.dimension).await?;
        }
        let prefix = format!("{}/{:010}/", shape.name, self.attempt);
        let members: Vec<_> = (0..self.schema.dimensions.len()).map(|at| self.members.get(&at).cloned()).collect();
        let mut shares = Shares::default();
        for share in Share::all(spill.parts()) {
            let writer = DividedWriter::new(&shape, &self.deps.warehouse, &prefix, share);
            let lookups = Lookups { members: members.clone(), calendar: calendar.clone() };
            shares.0.spawn(write_facts(self.schema.clone(), at, spill.clone(), lookups, writer, share));
        }
        let (mut rows, mut unknown) = (0, vec![0_u64; fact.roles.len() + fact.dates.len()]);
        while let Some((written, found)) = shares.next().await? {
            rows += written;
            unknown.iter_mut().zip(found).for_each(|(all, count)| *all += count);
        }
        if rows == 0 {
            write_empty(&shape, &self.deps.warehouse, &prefix).await?;
        }
        let names = shape.columns[self.schema.tables[fact.from].key.len()..].iter().map(|column| column.name.clone());
        let unknown = names.zip(unknown).filter(|(_, count)| *count > 0).collect();
        let definition = fact_digest(self.schema, fact);
        self.after.tables.insert(shape.name, TableState { definition, rows, prefix, members: None, unknown });
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
        let is_same = self.spills.is_empty() && self.after.tables == self.before.tables;
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
            let in_force = self.deps.rows.build().await?.map(|row| row.fence.attempt);
            if in_force != Some(self.attempt) {
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

    /// Figures of each source that was read: a log line, metrics, and its parameter.
    async fn report(&self, plan: &Plan, call: &Call) {
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
                .duration("Duration", call.took())
                .figure("Rows", Unit::Count, state.rows)
                .figure("Objects", Unit::Count, state.objects.len() as u64)
                .figure("Quarantined", Unit::Count, state.quarantined)
                .figure("SequenceGaps", Unit::Count, missing)
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
        for table in self.after.tables.keys().chain(self.before.tables.keys()).collect::<BTreeSet<_>>() {
            self.remove_earlier(&format!("{table}/"), &kept).await?;
            self.remove_earlier(&format!("_state/members/{table}/"), &kept).await?;
        }
        for at in self.spills.keys() {
            self.remove_earlier(&format!("{QUARANTINE}{}/", self.schema.tables[*at].name), &HashSet::new()).await?;
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

/// The shares of a table that are being written. They end with it.
struct Shares<T>(JoinSet<Result<T, Error>>);

impl<T> Default for Shares<T> {
    fn default() -> Self {
        Shares(JoinSet::new())
    }
}

impl<T: 'static> Shares<T> {
    async fn next(&mut self) -> Result<Option<T>, Error> {
        let done = self.0.join_next().await;
        done.map(|done| done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))).transpose()
    }
}

/// Writes a share of a dimension's rows; returns how many there are, and their members.
async fn write_members(
    schema: Arc<Schema>,
    at: usize,
    spill: Arc<Spill>,
    mut writer: TableWriter,
    share: Share,
    salt: u32,
) -> Result<(u64, Members), Error> {
    let dimension = &schema.dimensions[at];
    if share.number == 0 {
        for row in table::special_members(&schema, dimension) {
            writer.push(row).await?;
        }
    }
    let mut members = Members::default();
    for part in share.parts(spill.parts()) {
        for key in spill.part(part)?.keys() {
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
    }
    Ok((writer.finish().await?, members))
}

/// Writes a share of a fact's rows; returns how many there are, and how many have the member -1, by column.
async fn write_facts(
    schema: Arc<Schema>,
    at: usize,
    spill: Arc<Spill>,
    lookups: Lookups,
    mut writer: DividedWriter,
    share: Share,
) -> Result<(u64, Vec<u64>), Error> {
    let fact = &schema.facts[at];
    let first = schema.tables[fact.from].key.len();
    let mut unknown = vec![0; fact.roles.len() + fact.dates.len()];
    for part in share.parts(spill.parts()) {
        for key in spill.part(part)?.keys() {
            let mut newest: Option<Newest> = None;
            for change in key.changes() {
                let (change, _) = change?;
                match &mut newest {
                    None => newest = Some(Newest::first(change)),
                    Some(newest) => newest.apply(change),
                }
            }
            let Some(newest) = newest else { continue };
            let row = fact::row(&schema, fact, newest, &lookups);
            for (count, value) in unknown.iter_mut().zip(&row[first..]) {
                let is_unknown = matches!(value, Value::Bigint(UNKNOWN) | Value::Integer(-1));
                *count += u64::from(is_unknown);
            }
            writer.push(fact::partition(&schema, fact, &row), row).await?;
        }
    }
    Ok((writer.finish().await?, unknown))
}
