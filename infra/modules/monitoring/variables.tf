variable "prefix" {
  type = string
}

variable "region" {
  type = string
}

variable "account" {
  type = string
}

variable "state_machine_arn" {
  type = string
}

variable "functions" {
  type = map(object({ arn = string, name = string, timeout = number }))
}

variable "scheduled" {
  type = bool
}

variable "alarm_mails" {
  type = list(string)
}

variable "definition" {
  description = "Path of mark-dead-run."
  type        = string
}

variable "job_runs" {
  type = object({ name = string, arn = string })
}
