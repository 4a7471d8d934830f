variable "endpoint" {
  description = "URL at which all services are asked, Terraform's calls and the functions' alike; null for AWS's own."
  type        = string
  default     = null
}

variable "local" {
  description = "Whether this is an emulator: it speaks plain http, knows no accounts, and checks mail against no identity."
  type        = bool
  default     = false
}

variable "region" {
  description = "AWS region of everything that is deployed."
  type        = string
  default     = "us-east-1"
}

variable "prefix" {
  description = "Begins the name of everything. State machine and rule names leave it 40 characters."
  type        = string
  default     = "alert-archive"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,28}[a-z0-9]$", var.prefix))
    error_message = "Use 3 to 30 lower-case letters, digits and hyphens: bucket names allow nothing else."
  }
}

variable "bucket" {
  description = "Name of the archive bucket; null for <prefix>-archive-<account id>."
  type        = string
  default     = null
}

variable "protected" {
  description = "Whether tables and bucket resist destruction."
  type        = bool
  default     = true
}

variable "package_dir" {
  description = "Folder with manifest.json and <function>.zip as `make package` writes them, absolute or relative to infra/."
  type        = string
  default     = "../target/lambda"
}

# The source

variable "message_source" {
  description = "opensearch, api, or hybrid: messages of the last 45 days from the API, older ones from OpenSearch."
  type        = string
  default     = "opensearch"

  validation {
    condition     = contains(["opensearch", "api", "hybrid"], var.message_source)
    error_message = "Known are opensearch, api and hybrid."
  }
}

variable "opensearch_url" {
  description = "Where messages, history and audit are now, without a name or a password; not needed with message_source = api."
  type        = string
  default     = null

  validation {
    condition     = var.message_source == "api" || var.opensearch_url != null
    error_message = "Without it only message_source = api can work."
  }

  validation {
    condition     = var.local || !can(regex("//[^/]*@", var.opensearch_url))
    error_message = "A password in the URL would stand in Terraform's state and in plain environment variables: use opensearch_auth = basic."
  }
}

variable "api_url" {
  description = "The address to which /getMessages is appended; needed with message_source = api or hybrid."
  type        = string
  default     = null

  validation {
    condition     = var.message_source == "opensearch" || can(regex("^https?://[^@?#]+$", var.api_url))
    error_message = "With message_source = api or hybrid an http or https address is needed, without user, query and fragment."
  }

  validation {
    condition     = var.local || var.api_url == null || !startswith(coalesce(var.api_url, "-"), "http://")
    error_message = "A token may not go over a network in plain text: use https."
  }
}

variable "api_page_size" {
  description = "Messages a page of the API: at most 500."
  type        = number
  default     = 500

  validation {
    condition     = var.api_page_size >= 1 && var.api_page_size <= 500 && floor(var.api_page_size) == var.api_page_size
    error_message = "Between 1 and 500."
  }
}

variable "api_requests_per_second" {
  description = "What the API allows, for all functions together, retries included."
  type        = number
  default     = 20

  validation {
    condition     = var.api_requests_per_second >= 1 && floor(var.api_requests_per_second) == var.api_requests_per_second
    error_message = "At least 1, and whole."
  }
}

variable "api_secret_arn" {
  description = "The secret with {\"token\"} or {\"token_url\",\"client_id\",\"client_secret\"}; null to create an empty one."
  type        = string
  default     = null
}

variable "opensearch_auth" {
  description = "none; iam for signed requests to an Amazon OpenSearch domain; basic for a name and a password from a secret."
  type        = string
  default     = "none"

  validation {
    condition     = contains(["none", "iam", "basic"], var.opensearch_auth)
    error_message = "Known are none, iam and basic."
  }

  validation {
    condition     = var.opensearch_auth != "basic" || var.local || !startswith(coalesce(var.opensearch_url, "-"), "http://")
    error_message = "A password may not go over a network in plain text: use https."
  }
}

variable "opensearch_secret_arn" {
  description = "Needed with opensearch_auth = basic: the secret with {\"username\",\"password\"}. Terraform never reads its value."
  type        = string
  default     = null

  validation {
    condition     = var.opensearch_auth != "basic" || var.opensearch_secret_arn != null
    error_message = "With opensearch_auth = basic the functions need the secret's ARN."
  }
}

variable "opensearch_domain_arn" {
  description = "Needed with opensearch_auth = iam."
  type        = string
  default     = null

  validation {
    condition     = var.opensearch_auth != "iam" || var.opensearch_domain_arn != null
    error_message = "With opensearch_auth = iam the roles need the domain's ARN."
  }
}

variable "messages_index" {
  description = "Index or alias that holds the messages."
  type        = string
  default     = "messages"
}

variable "history_index" {
  description = "Index or alias that holds the history of messages."
  type        = string
  default     = "history"
}

variable "audit_index" {
  description = "Index or alias that holds the audit trail of messages."
  type        = string
  default     = "audit"
}

variable "vpc" {
  description = "Subnets and security groups from which the source can be reached; null where it is public."
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null
}

# The work

variable "open_statuses" {
  description = "Statuses of an alert that hold its message over, in lower case."
  type        = list(string)
  default     = ["open", "new", "reopened", "pending", "in_progress", "acknowledged"]
}

variable "closed_statuses" {
  description = "Statuses of an alert that is closed, in lower case. A status in neither list sends its message to quarantine."
  type        = list(string)
  default     = ["closed"]
}

variable "window_messages" {
  description = "Messages that a window should hold."
  type        = number
  default     = 4000
}

variable "run_windows" {
  description = "Windows that a scheduled run takes at most; what lies behind them is left to the next run. Windows of late and held-over messages come on top."
  type        = number
  default     = 2000

  validation {
    condition     = var.run_windows >= 1 && var.run_windows <= 9000
    error_message = "A run takes 1 to 9,000 windows of its range."
  }
}

variable "settle_minutes" {
  description = "How long before its scheduled time a run stops: what is younger may still change order or be invisible to searches."
  type        = number
  default     = 60
}

variable "write_jsonl" {
  description = "Whether archived messages are written as JSON lines, too."
  type        = bool
  default     = false
}

variable "write_message_json" {
  description = "One JSON object a message; at $0.005 a thousand PUTs the dearest part of an archive."
  type        = bool
  default     = false
}

variable "cold_storage" {
  description = "Whether Parquet is packed for cold storage: a fifth smaller, for more than three times the CPU of writing it (docs/cost.md)."
  type        = bool
  default     = false
}

variable "source_gb_month" {
  description = "What a GB of messages costs in the source, in USD a month, all copies of it together: mail and page tell by it what can be saved. Without it 0.244 is assumed: two copies on gp3 volumes of OpenSearch Service (docs/cost.md)."
  type        = number
  default     = null

  validation {
    condition     = var.source_gb_month == null || coalesce(var.source_gb_month, 0) >= 0
    error_message = "A price is not below zero."
  }
}

variable "max_concurrency" {
  description = "Windows at work at once. The source bears the load, so its size decides."
  type        = number
  default     = 10

  validation {
    condition     = var.max_concurrency >= 1 && var.max_concurrency <= 1000
    error_message = "Between 1 and 1,000: 0 would mean no bound at all."
  }
}

variable "function_sizes" {
  description = "Other sizes than those of the workflows' files, by function: memory in MB (CPU comes with it), timeout in seconds."
  type        = map(object({ memory = number, timeout = number }))
  default     = {}
}

variable "log_level" {
  description = "Level from which on the functions log: error, warn, info, debug or trace."
  type        = string
  default     = "info"
}

# Reports

variable "mail_from" {
  description = "Sender of the summary; SES asks it to confirm."
  type        = string
}

variable "mail_to" {
  description = "Recipients of every kind of report that mail_to_by_kind does not name. The lists stand in Parameter Store (/<prefix>/mail/<kind>); Terraform writes each once, and what operators change there stays."
  type        = list(string)
  validation {
    condition     = length(var.mail_to) > 0 && alltrue([for address in var.mail_to : length(split("@", address)) == 2])
    error_message = "mail_to needs at least one address, each like operations@example.com."
  }
}

variable "mail_to_by_kind" {
  description = "Recipients of single kinds of reports: runs (after each run), overdue (runs stay away), log_errors."
  type        = map(list(string))
  default     = {}
  validation {
    condition     = alltrue([for kind, list in var.mail_to_by_kind : contains(["runs", "overdue", "log_errors"], kind) && length(list) > 0])
    error_message = "The kinds are runs, overdue and log_errors, each with at least one address."
  }
}

variable "mail_identity" {
  description = "An SES identity that exists and covers mail_from, a domain or an address; null to create one for mail_from."
  type        = string
  default     = null
}

variable "dashboard_url" {
  description = "Where readers of the mail find the dashboard."
  type        = string
  default     = null
}

variable "alarm_mails" {
  description = "Who is told of dead executions and alarms."
  type        = list(string)
  default     = []
}

# Time

variable "schedule" {
  description = "When the archive runs: a cron or rate expression of EventBridge Scheduler."
  type        = string
  default     = "cron(0 6 ? * MON *)"
}

variable "schedule_timezone" {
  description = "Time zone of the schedule, by its IANA name."
  type        = string
  default     = "UTC"
}

variable "schedule_enabled" {
  description = "Whether the archive runs by its schedule."
  type        = bool
  default     = true
}

variable "silent_days" {
  description = "Days without a completed run after which the operators are told; longer than the schedule's interval."
  type        = number
  default     = 8
}

variable "log_retention_days" {
  description = "Days after which CloudWatch deletes logs."
  type        = number
  default     = 90
}

variable "spool_retention_days" {
  description = "The spool must outlive the 14 days in which Step Functions can redrive."
  type        = number
  default     = 30

  validation {
    condition     = var.spool_retention_days > 14
    error_message = "A redrive up to 14 days after a failure reads the spool."
  }
}

variable "noncurrent_retention_days" {
  description = "How long replaced and deleted objects can be brought back."
  type        = number
  default     = 90
}

variable "archive_transition_days" {
  description = "Days until archived objects move to Glacier Instant Retrieval; null to leave them in Standard. A later replacement of a row costs a retrieval."
  type        = number
  default     = null
}

# The warehouse

variable "database_secret_arn" {
  description = "Secret with username and password of the PostgreSQL database, and with host, port and dbname, if database_host and database_name do not name them; its role needs what docs/warehouse.md names. Null: an empty one is made."
  type        = string
  default     = null
}

variable "database_host" {
  description = "Host of the database, for a secret that names none, as those that RDS manages; of a cluster the writer's endpoint."
  type        = string
  default     = null
}

variable "database_port" {
  description = "Port of the database, for a secret that names none."
  type        = number
  default     = 5432
}

variable "database_name" {
  description = "Name of the database, for a secret that names none."
  type        = string
  default     = null
}

variable "database_ca_file" {
  description = "PEM file with the authorities by which the database's certificate may be signed, and no others: for RDS and Aurora its global-bundle.pem. Null: those of the system, which do not have RDS' own."
  type        = string
  default     = null
}

variable "local_database_credentials" {
  description = "Content of that secret in the local cloud."
  type        = string
  default     = "{}"
  sensitive   = true
}

variable "ingest_schedule" {
  description = "When ingest-tables reads the database."
  type        = string
  default     = "rate(15 minutes)"
}

variable "ingest_enabled" {
  description = "Whether the tables of a database are loaded by their schedule."
  type        = bool
  default     = false
}

variable "warehouse_schema_file" {
  description = "The schema file whose tables Glue knows; null: the example."
  type        = string
  default     = null
}

variable "ingest_rows_per_second" {
  description = "The most that is read from the database, so that it has time for others."
  type        = number
  default     = 100000
}

variable "ingest_read_timeout_seconds" {
  description = "After which the database ends the read of one table."
  type        = number
  default     = 600
}

# Partner feeds

variable "feeds_batch_size" {
  description = "Messages a call of consolidate-feeds at most. More in a batch make fewer and fuller outputs."
  type        = number
  default     = 10

  validation {
    condition     = var.feeds_batch_size >= 1 && var.feeds_batch_size <= 10000
    error_message = "Between 1 and 10,000."
  }
}

variable "feeds_compression" {
  description = "none, or gzip for outputs that end with .jsonl.gz."
  type        = string
  default     = "none"

  validation {
    condition     = contains(["none", "gzip"], var.feeds_compression)
    error_message = "Known are none and gzip."
  }
}

variable "feeds_partners_capacity" {
  description = "Read and write units of the partners' table."
  type        = object({ read = number, write = number })
  default     = { read = 5, write = 2 }
}

variable "feeds_replica_arn" {
  description = "A versioned bucket, in another region perhaps, that gets a copy of each partner file; null for one in this account and region."
  type        = string
  default     = null
}

variable "feeds_kms_key_arn" {
  description = "Key that encrypts the feeds' buckets, and the replica that is made here; null for the key of S3 itself. Its policy must let IAM decide, as that of a new key does."
  type        = string
  default     = null
}

variable "feeds_replica_kms_key_arn" {
  description = "With feeds_replica_arn and feeds_kms_key_arn: the key, in the replica's region, that encrypts the copies."
  type        = string
  default     = null

  validation {
    condition     = var.feeds_replica_arn == null ? var.feeds_replica_kms_key_arn == null : (var.feeds_kms_key_arn == null) == (var.feeds_replica_kms_key_arn == null)
    error_message = "Files under feeds_kms_key_arn are copied to feeds_replica_arn under feeds_replica_kms_key_arn: set both keys, or none."
  }
}

variable "feeds_concurrency" {
  description = "Calls that consolidate partner files at once, from 2. All of them take numbers from one row; more come in each other's way before they are faster."
  type        = number
  default     = 10

  validation {
    condition     = var.feeds_concurrency >= 2 && var.feeds_concurrency <= 1000
    error_message = "A queue starts from 2 to 1000 calls at once."
  }
}

# Logs

variable "logs_concurrency" {
  description = "Log objects that are extracted at once, from 2."
  type        = number
  default     = 10
}

variable "logs_limits" {
  description = "What a log object may unpack to: bytes in all, and bytes for each packed one. What goes beyond is a bomb."
  type        = object({ bytes = number, ratio = number })
  default     = { bytes = 274877906944, ratio = 400 }
}

variable "log_patterns" {
  description = "Path of a pattern file for logs (see docs/logs.md); null for what is built in."
  type        = string
  default     = null
}

variable "log_report_schedule" {
  description = "When the report of log errors goes out, in the zone of schedule_timezone; it covers the day before."
  type        = string
  default     = "cron(0 6 * * ? *)"
}
