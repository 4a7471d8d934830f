variable "prefix" {
  type = string
}

variable "bucket" {
  type = string
}

variable "protected" {
  type = bool
}

variable "require_tls" {
  type = bool
}

variable "spool_retention_days" {
  type = number
}

variable "noncurrent_retention_days" {
  type = number
}

variable "archive_transition_days" {
  type = number
}
