variable "name" {
  type = string
}

variable "state_machine_arn" {
  description = "Built by the root, because the role must name the machine before it exists."
  type        = string
}

variable "executions_arn" {
  type = string
}

variable "account" {
  type = string
}

variable "definition" {
  description = "Path of the definition."
  type        = string
}

variable "functions" {
  description = "By function: arn, name, timeout."
  type        = map(object({ arn = string, name = string, timeout = number }))
}

variable "bucket_arn" {
  type = string
}

variable "max_concurrency" {
  type = number
}

variable "log_retention_days" {
  type = number
}

variable "schedule" {
  type = string
}

variable "schedule_timezone" {
  type = string
}

variable "schedule_enabled" {
  type = bool
}
