variable "deployment" {
  type = object({
    prefix          = string
    region          = string
    account         = string
    partition       = string
    local           = bool
    alarm_topic_arn = string
  })
}

variable "bucket" {
  type = string
}

variable "protected" {
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

variable "kept_folders" {
  description = "Folders of other workflows in the same bucket whose old versions are kept as long as the archive's."
  type        = list(string)
  default     = []
}

variable "expiring_folders" {
  description = "Folders of other workflows in the same bucket that hold intermediate results, and after how many days these go."
  type        = map(number)
  default     = {}
}
