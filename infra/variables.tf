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
  type    = string
  default = "us-east-1"
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

variable "opensearch_url" {
  description = "Where the messages are now, without a name or a password."
  type        = string

  validation {
    condition     = var.local || !can(regex("//[^/]*@", var.opensearch_url))
    error_message = "A password in the URL would stand in Terraform's state and in plain environment variables: use opensearch_auth = basic."
  }
}

variable "opensearch_auth" {
  description = "none; iam for signed requests to an Amazon OpenSearch domain; basic for a name and a password from a secret."
  type        = string
  default     = "none"

  validation {
    condition     = contains(["none", "iam", "basic"], var.opensearch_auth)
    error_message = "Known are none, iam and basic."
  }
}

variable "opensearch_secret_arn" {
  description = "Needed with opensearch_auth = basic: a secret in Secrets Manager whose value is {\"username\":\"...\",\"password\":\"...\"}."
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
  type    = string
  default = "messages"
}

variable "history_index" {
  type    = string
  default = "history"
}

variable "audit_index" {
  type    = string
  default = "audit"
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
  type    = list(string)
  default = ["open", "new", "reopened", "pending", "in_progress", "acknowledged"]
}

variable "closed_statuses" {
  type    = list(string)
  default = ["closed"]
}

variable "window_messages" {
  description = "Messages that a window should hold."
  type        = number
  default     = 4000
}

variable "settle_minutes" {
  description = "How long before its scheduled time a run stops: what is younger may still change order or be invisible to searches."
  type        = number
  default     = 60
}

variable "write_jsonl" {
  type    = bool
  default = false
}

variable "write_message_json" {
  description = "One JSON object a message; at $0.005 a thousand PUTs the dearest part of an archive."
  type        = bool
  default     = false
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
  type    = string
  default = "info"
}

# Reports

variable "mail_from" {
  description = "Sender of the summary; SES asks it to confirm."
  type        = string
}

variable "mail_to" {
  type = list(string)
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
  type    = string
  default = "cron(0 6 ? * MON *)"
}

variable "schedule_timezone" {
  type    = string
  default = "UTC"
}

variable "schedule_enabled" {
  type    = bool
  default = true
}

variable "silent_days" {
  description = "Days without a completed run after which the operators are told; longer than the schedule's interval."
  type        = number
  default     = 8
}

variable "log_retention_days" {
  type    = number
  default = 90
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
