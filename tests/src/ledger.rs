//! The three tables, read item by item as plain JSON.

use crate::{Cloud, Message, Stretch};
use anyhow::{Context, Result};
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use identity::Identity;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

type Item = HashMap<String, AttributeValue>;

fn key(pairs: &[(&str, &str)]) -> Item {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), AttributeValue::S((*value).to_owned()))).collect()
}

fn json(item: Item) -> Result<Value> {
    Ok(serde_dynamo::from_item(item)?)
}

fn identity(row: &Value) -> Identity {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    Identity::new(text("source_index"), text("message_id"))
}

impl Cloud {
    /// The rows of these messages; those without one are absent.
    pub async fn rows(&self, messages: &[Message]) -> Result<BTreeMap<Identity, Value>> {
        let mut rows = BTreeMap::new();
        for batch in messages.chunks(100) {
            let keys = batch
                .iter()
                .map(|message| key(&[("message_id", &message.id), ("source_index", &message.index)]))
                .collect();
            let request = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build()?;
            let answer = self.dynamodb.batch_get_item().request_items(&self.tracking, request).send().await?;
            for item in answer.responses.unwrap_or_default().into_values().flatten() {
                let row = json(item)?;
                rows.insert(identity(&row), row);
            }
        }
        Ok(rows)
    }

    /// The indices under which an id is known.
    pub async fn ledger_rows(&self, message_id: &str) -> Result<Vec<String>> {
        let query = self
            .dynamodb
            .query()
            .table_name(&self.tracking)
            .consistent_read(true)
            .key_condition_expression("message_id = :m");
        let answer = query.expression_attribute_values(":m", AttributeValue::S(message_id.to_owned())).send().await?;
        answer.items.unwrap_or_default().into_iter().map(|item| Ok(identity(&json(item)?).source_index)).collect()
    }

    /// Deletes the row of a message, as a person might by mistake.
    pub async fn forget(&self, message: &Message) -> Result<()> {
        let row = key(&[("message_id", &message.id), ("source_index", &message.index)]);
        self.dynamodb.delete_item().table_name(&self.tracking).set_key(Some(row)).send().await?;
        Ok(())
    }

    /// The stretch's identities in the staging area.
    pub async fn staged(&self, stretch: &Stretch) -> Result<Vec<Identity>> {
        let mut staged = Vec::new();
        for shard in 0..16 {
            let query = self
                .dynamodb
                .query()
                .table_name(&self.tracking)
                .index_name("staging")
                .key_condition_expression("staging = :s");
            let mut pages = query
                .expression_attribute_values(":s", AttributeValue::S(format!("open#{shard}")))
                .into_paginator()
                .send();
            while let Some(page) = pages.next().await {
                for item in page?.items.unwrap_or_default() {
                    staged.push(identity(&json(item)?));
                }
            }
        }
        staged.retain(|document: &Identity| document.id.starts_with(&format!("{}-", stretch.prefix)));
        staged.sort();
        Ok(staged)
    }

    pub async fn window_rows(&self, run_id: &str) -> Result<Vec<Value>> {
        let query = self
            .dynamodb
            .query()
            .table_name(&self.windows)
            .consistent_read(true)
            .key_condition_expression("run_id = :r");
        let mut pages =
            query.expression_attribute_values(":r", AttributeValue::S(run_id.to_owned())).into_paginator().send();
        let mut rows = Vec::new();
        while let Some(page) = pages.next().await {
            for item in page?.items.unwrap_or_default() {
                rows.push(json(item)?);
            }
        }
        Ok(rows)
    }

    /// Deletes the rows of a run's windows.
    pub async fn forget_windows(&self, run_id: &str) -> Result<()> {
        for row in self.window_rows(run_id).await? {
            let row = key(&[("run_id", run_id), ("window_id", row["window_id"].as_str().unwrap_or_default())]);
            self.dynamodb.delete_item().table_name(&self.windows).set_key(Some(row)).send().await?;
        }
        Ok(())
    }

    /// Null when there is no such row.
    pub async fn job_run(&self, run_id: &str) -> Result<Value> {
        let answer = self
            .dynamodb
            .get_item()
            .table_name(&self.job_runs)
            .set_key(Some(key(&[("run_id", run_id)])))
            .consistent_read(true)
            .send()
            .await?;
        answer.item.map_or(Ok(Value::Null), json)
    }

    /// Puts a row into `job-runs`, as it is.
    pub async fn put_job_run(&self, row: &Value) -> Result<()> {
        let item: Item = serde_dynamo::to_item(row)?;
        self.dynamodb.put_item().table_name(&self.job_runs).set_item(Some(item)).send().await?;
        Ok(())
    }

    /// Sets the instant from which the next scheduled run begins; `None` to forget it.
    pub async fn set_watermark(&self, at: Option<&str>) -> Result<()> {
        let mut item = key(&[("run_id", "#watermark")]);
        match at {
            None => drop(self.dynamodb.delete_item().table_name(&self.job_runs).set_key(Some(item)).send().await?),
            Some(at) => {
                item.insert("at".into(), AttributeValue::S(at.to_owned()));
                item.insert("revision".into(), AttributeValue::N("1".into()));
                self.dynamodb
                    .put_item()
                    .table_name(&self.job_runs)
                    .set_item(Some(item))
                    .send()
                    .await
                    .context("the watermark")?;
            }
        }
        Ok(())
    }
}
