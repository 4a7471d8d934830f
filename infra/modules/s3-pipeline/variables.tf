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

variable "name" {
  description = "One word that names the pipeline, for example feeds."
  type        = string
}

variable "function" {
  description = "The function that takes the messages. Its policy needs sqs:ReceiveMessage, DeleteMessage and GetQueueAttributes on queue_arn."
  type        = object({ arn = string, name = string, timeout = number })
}

# The source bucket

variable "bucket" {
  description = "Name of the source bucket."
  type        = string
}

variable "protected" {
  description = "Whether a destroy leaves the bucket alone."
  type        = bool
}

variable "versioning" {
  description = "Whether the bucket keeps what is overwritten and deleted."
  type        = bool
  default     = true
}

variable "kms_key_arn" {
  description = "See modules/bucket."
  type        = string
  default     = null
}

variable "lifecycle_rules" {
  description = "See modules/bucket."
  type        = any
  default     = {}
}

variable "replication" {
  description = "See modules/bucket."
  type        = object({ bucket_arn = string, kms_key_arn = optional(string), storage_class = optional(string, "STANDARD_IA") })
  default     = null
}

variable "prefix_filter" {
  description = "Objects whose key begins with it start the pipeline; null for all."
  type        = string
  default     = null
}

variable "suffix_filter" {
  description = "The end of the keys whose events count; without it, all do."
  type        = string
  default     = null
}

# The queue

variable "further_buckets" {
  description = "ARNs of other buckets that may put messages into the queue; their notifications are their owners' matter."
  type        = list(string)
  default     = []
}

variable "batch_size" {
  description = "Messages a call at most; above 10 the batch window must be at least a second."
  type        = number
  default     = 10
}

variable "batch_window_seconds" {
  description = "How long Lambda waits for a batch to fill."
  type        = number
  default     = 0

  validation {
    condition     = var.batch_size <= 10 || var.batch_window_seconds >= 1
    error_message = "A batch of more than 10 needs a batch window of at least 1 second."
  }
}

variable "max_concurrency" {
  description = "Calls at once from this queue, from 2; null for no bound but the function's own."
  type        = number
  default     = null
}

variable "visibility_seconds" {
  description = "How long a message that was taken stays hidden; null for six times the function's timeout and the batch window, as AWS advises."
  type        = number
  default     = null
}

variable "receive_wait_seconds" {
  description = "How long a receive waits for a message: 20 is the longest poll and the cheapest."
  type        = number
  default     = 20
}

variable "max_receives" {
  description = "Receives of a message until it goes to the dead-letter queue."
  type        = number
  default     = 5
}

variable "max_age_seconds" {
  description = "The oldest message may wait this long before the operators are told."
  type        = number
  default     = 3600
}
