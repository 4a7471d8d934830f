variable "prefix" {
  type = string
}

variable "package_dir" {
  type = string
}

variable "architecture" {
  type = string
}

variable "size_overrides" {
  type = map(object({ memory = number, timeout = number }))
}

variable "log_retention_days" {
  type = number
}

variable "log_level" {
  type = string
}

variable "endpoint" {
  type = string
}

variable "vpc" {
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
}

variable "storage" {
  description = "The outputs of modules/storage."
  type = object({
    bucket                 = string
    bucket_arn             = string
    job_runs_table         = string
    job_runs_arn           = string
    windows_table          = string
    windows_arn            = string
    message_tracking_table = string
    message_tracking_arn   = string
  })
}

variable "executions_arn" {
  type = string
}

variable "mail_identity_arn" {
  type = string
}

variable "opensearch_url" {
  type = string
}

variable "opensearch_auth" {
  type = string
}

variable "opensearch_domain_arn" {
  type = string
}

variable "messages_index" {
  type = string
}

variable "history_index" {
  type = string
}

variable "audit_index" {
  type = string
}

variable "open_statuses" {
  type = list(string)
}

variable "closed_statuses" {
  type = list(string)
}

variable "window_messages" {
  type = number
}

variable "settle_minutes" {
  type = number
}

variable "write_jsonl" {
  type = bool
}

variable "write_message_json" {
  type = bool
}

variable "mail_from" {
  type = string
}

variable "mail_to" {
  type = list(string)
}

variable "dashboard_url" {
  type = string
}
