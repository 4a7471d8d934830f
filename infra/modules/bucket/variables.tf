variable "deployment" {
  description = "Account and partition, and whether this is the local cloud."
  type        = object({ account = string, partition = string, local = bool })
}

variable "name" {
  description = "Name of the bucket."
  type        = string
}

variable "protected" {
  description = "Whether a bucket that holds objects resists destruction."
  type        = bool
}

variable "versioning" {
  description = "Whether the bucket keeps what is overwritten and deleted."
  type        = bool
  default     = true
}

variable "kms_key_arn" {
  description = "Key that encrypts the objects; null for the key of S3 itself. Who reads them needs kms:Decrypt on it."
  type        = string
  default     = null
}

variable "lifecycle_rules" {
  description = "By name; the prefix ends with a slash. Abandoned uploads and lone delete markers go in any case."
  type = map(object({
    prefix                     = string
    expiration_days            = optional(number)
    noncurrent_expiration_days = optional(number)
    transition_days            = optional(number)
    transition_class           = optional(string, "GLACIER_IR")
  }))
  default = {}
}

variable "replication" {
  description = "A versioned bucket elsewhere that gets a copy of each new object, and the key that encrypts copies of objects under kms_key_arn; null for none."
  type        = object({ bucket_arn = string, kms_key_arn = optional(string), storage_class = optional(string, "STANDARD_IA") })
  default     = null

  validation {
    condition     = var.replication == null || var.versioning
    error_message = "S3 replicates versioned buckets only."
  }

  validation {
    condition     = var.replication == null || (var.kms_key_arn == null) == (try(var.replication.kms_key_arn, null) == null)
    error_message = "Objects under a key of yours are copied under a key of the destination's region, and only they are."
  }
}
