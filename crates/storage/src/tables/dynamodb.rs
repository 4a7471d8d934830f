use super::store::{Batch, Item, LedgerError, Page, Query, RowCondition, TableStore, Write, WriteOutcome};
use async_trait::async_trait;
use aws_sdk_dynamodb::{
    Client,
    error::{BuildError, ProvideErrorMetadata, SdkError},
    operation::transact_write_items::TransactWriteItemsError,
    types::{
        AttributeValue, BatchStatementErrorCodeEnum as Code, BatchStatementRequest, BatchStatementResponse, Delete,
        KeysAndAttributes, Put, ReturnValuesOnConditionCheckFailure, Select, TransactWriteItem,
    },
};
use std::error::Error;

/// DynamoDB itself. The client tries a request that fails in passing again.
pub(crate) struct DynamoDb {
    client: Client,
}

impl DynamoDb {
    pub(crate) fn new(config: &aws_config::SdkConfig) -> Self {
        DynamoDb { client: Client::new(config) }
    }
}

#[async_trait]
impl TableStore for DynamoDb {
    async fn get(&self, table: &str, key: Item) -> Result<Option<Item>, LedgerError> {
        let get = self.client.get_item().table_name(table).consistent_read(true).set_key(Some(key));
        Ok(get.send().await.map_err(|error| fault("GetItem", table, error))?.item)
    }

    async fn batch_get(&self, table: &str, keys: Vec<Item>) -> Result<Batch, LedgerError> {
        let request = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build();
        let request = request.map_err(|error| fault_of("BatchGetItem", table, error.to_string(), error))?;
        let answer = self.client.batch_get_item().request_items(table, request).send().await;
        let answer = answer.map_err(|error| fault("BatchGetItem", table, error))?;
        Ok(Batch {
            items: answer.responses.unwrap_or_default().into_values().flatten().collect(),
            unprocessed: answer.unprocessed_keys.unwrap_or_default().into_values().flat_map(|rest| rest.keys).collect(),
        })
    }

    async fn put(&self, table: &str, item: Item, condition: RowCondition) -> Result<bool, LedgerError> {
        let put = self.client.put_item().table_name(table).set_item(Some(item));
        let put = match condition {
            RowCondition::Absent(partition) => {
                put.condition_expression("attribute_not_exists(#p)").expression_attribute_names("#p", partition)
            }
            RowCondition::Revision(before) => put
                .condition_expression("revision = :before")
                .expression_attribute_values(":before", AttributeValue::N(before.to_string())),
        };
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(fault("PutItem", table, error)),
        }
    }

    async fn write_batch(&self, table: &str, writes: &[Write]) -> Result<Vec<WriteOutcome>, LedgerError> {
        const OPERATION: &str = "BatchExecuteStatement";
        let statements = writes.iter().map(|write| statement(table, write)).collect::<Result<Vec<_>, _>>();
        let statements = statements.map_err(|error| fault_of(OPERATION, table, error.to_string(), error))?;
        let answer = self.client.batch_execute_statement().set_statements(Some(statements)).send().await;
        let answers = answer.map_err(|error| fault(OPERATION, table, error))?.responses.unwrap_or_default();
        if answers.len() != writes.len() {
            let message = format!("{} statements, {} answers", writes.len(), answers.len());
            return Err(LedgerError::Unavailable {
                operation: OPERATION,
                table: table.to_owned(),
                source: message.clone().into(),
                message,
            });
        }
        answers.into_iter().map(|answer| written(OPERATION, table, answer)).collect()
    }

    async fn replace(
        &self,
        table: &str,
        item: Item,
        partition: &'static str,
        replaced: Item,
        revision: u64,
    ) -> Result<bool, LedgerError> {
        const OPERATION: &str = "TransactWriteItems";
        let unbuilt = |error: BuildError| fault_of(OPERATION, table, error.to_string(), error);
        let put = Put::builder().table_name(table).set_item(Some(item));
        let put = put.condition_expression("attribute_not_exists(#p)").expression_attribute_names("#p", partition);
        let delete = Delete::builder().table_name(table).set_key(Some(replaced));
        let delete = delete.condition_expression("revision = :before");
        let delete = delete.expression_attribute_values(":before", AttributeValue::N(revision.to_string()));
        let put = TransactWriteItem::builder().put(put.build().map_err(unbuilt)?).build();
        let delete = TransactWriteItem::builder().delete(delete.build().map_err(unbuilt)?).build();
        let write = self.client.transact_write_items().transact_items(put).transact_items(delete);
        match write.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.as_service_error().is_some_and(is_refused) => Ok(false),
            Err(error) => Err(fault(OPERATION, table, error)),
        }
    }

    async fn query(&self, table: &str, query: &Query<'_>, after: Option<Item>) -> Result<Page, LedgerError> {
        let (attribute, value) = query.partition;
        let request = self.client.query().table_name(table).set_index_name(query.index.map(str::to_owned));
        let request = request.consistent_read(query.index.is_none()).set_limit(query.limit);
        let request = request
            .key_condition_expression("#p = :p")
            .expression_attribute_names("#p", attribute)
            .expression_attribute_values(":p", AttributeValue::S(value.to_owned()));
        let request = match query.filter {
            Some((attribute, value)) => request
                .filter_expression("#f = :f")
                .expression_attribute_names("#f", attribute)
                .expression_attribute_values(":f", AttributeValue::S(value.to_owned())),
            None => request,
        };
        let request = if query.only_count { request.select(Select::Count) } else { request };
        let answer = request.set_exclusive_start_key(after).send().await;
        let answer = answer.map_err(|error| fault("Query", table, error))?;
        let count = answer.count.max(0) as u64;
        Ok(Page { items: answer.items.unwrap_or_default(), count, last: answer.last_evaluated_key })
    }

    async fn scan(&self, table: &str, after: Option<Item>) -> Result<Page, LedgerError> {
        let request = self.client.scan().table_name(table).consistent_read(true).set_exclusive_start_key(after);
        let answer = request.send().await.map_err(|error| fault("Scan", table, error))?;
        let count = answer.count.max(0) as u64;
        Ok(Page { items: answer.items.unwrap_or_default(), count, last: answer.last_evaluated_key })
    }
}

/// One of the rows is another than was expected, or is being written by another.
fn is_refused(error: &TransactWriteItemsError) -> bool {
    let TransactWriteItemsError::TransactionCanceledException(canceled) = error else { return false };
    let mut codes = canceled.cancellation_reasons().iter().filter_map(|reason| reason.code());
    codes.all(|code| matches!(code, "None" | "ConditionalCheckFailed" | "TransactionConflict"))
}

/// A write in PartiQL. Every name is quoted, and every value a parameter.
fn statement(table: &str, write: &Write) -> Result<BatchStatementRequest, BuildError> {
    let (text, parameters) = match write {
        Write::Insert(item) => {
            let names: Vec<_> = item.keys().map(|name| format!("'{name}': ?")).collect();
            let text = format!("INSERT INTO \"{table}\" VALUE {{{}}}", names.join(", "));
            (text, item.values().cloned().collect::<Vec<_>>())
        }
        Write::Update { key, only_if, set, remove } => {
            let mut text = format!("UPDATE \"{table}\"");
            text.extend(set.keys().map(|name| format!(" SET \"{name}\" = ?")));
            text.extend(remove.iter().map(|name| format!(" REMOVE \"{name}\"")));
            let conditions: Vec<_> = key.keys().chain(only_if.keys()).map(|name| format!("\"{name}\" = ?")).collect();
            text.extend([" WHERE ", &conditions.join(" AND ")]);
            (text, set.values().chain(key.values()).chain(only_if.values()).cloned().collect())
        }
    };
    BatchStatementRequest::builder()
        .statement(text)
        .set_parameters(Some(parameters))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .build()
}

/// What became of one statement. Each fails for itself.
fn written(operation: &'static str, table: &str, answer: BatchStatementResponse) -> Result<WriteOutcome, LedgerError> {
    let Some(error) = answer.error else { return Ok(WriteOutcome::Done) };
    let message = [error.code.as_ref().map(Code::as_str), error.message.as_deref()];
    let message = message.into_iter().flatten().collect::<Vec<_>>().join(": ");
    match error.code {
        Some(Code::ConditionalCheckFailed | Code::DuplicateItem) => Ok(WriteOutcome::Refused(error.item)),
        Some(
            Code::ProvisionedThroughputExceeded
            | Code::RequestLimitExceeded
            | Code::ThrottlingError
            | Code::TransactionConflict
            | Code::InternalServerError,
        ) => Ok(WriteOutcome::Unprocessed),
        Some(Code::ResourceNotFound) => Err(LedgerError::TableMissing { operation, table: table.to_owned() }),
        Some(Code::AccessDenied) => Err(LedgerError::Denied { operation, table: table.to_owned(), message }),
        _ => Err(LedgerError::Unavailable {
            operation,
            table: table.to_owned(),
            source: message.clone().into(),
            message,
        }),
    }
}

fn fault<E, R>(operation: &'static str, table: &str, error: SdkError<E, R>) -> LedgerError
where
    E: Error + Send + Sync + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let message = [error.code(), error.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    match error.code() {
        Some("ResourceNotFoundException") => LedgerError::TableMissing { operation, table: table.to_owned() },
        Some("AccessDeniedException" | "UnrecognizedClientException") => {
            LedgerError::Denied { operation, table: table.to_owned(), message }
        }
        _ => fault_of(operation, table, message, error),
    }
}

fn fault_of(
    operation: &'static str,
    table: &str,
    message: String,
    source: impl Error + Send + Sync + 'static,
) -> LedgerError {
    LedgerError::Unavailable { operation, table: table.to_owned(), message, source: Box::new(source) }
}
