variable "deployment" {
  description = "What the parts of a deployment share."
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
  description = "Name of the bucket of the archive."
  type        = string
}

variable "protected" {
  description = "Whether a destroy leaves bucket and tables alone."
  type        = bool
}

variable "spool_retention_days" {
  description = "Days after which the spool expires: more than the 14 in which a run can be redriven."
  type        = number
}

variable "noncurrent_retention_days" {
  description = "Days for which the bucket keeps what was overwritten or deleted."
  type        = number
}

variable "archive_transition_days" {
  description = "Days after which archived objects move to colder storage."
  type        = number
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
