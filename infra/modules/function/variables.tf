variable "deployment" {
  description = "What all functions of a deployment share."
  type = object({
    prefix             = string
    region             = string
    account            = string
    partition          = string
    endpoint           = string
    log_level          = string
    log_retention_days = number
    alarm_topic_arn    = string
    schedule_group     = string
    undelivered_arn    = string
  })
}

variable "packages" {
  description = "Where the zips are, the bucket that they go through, and the architecture that they were built for."
  type        = object({ folder = string, bucket = string, architecture = string })
}

variable "name" {
  description = "Verb and noun, the name of the folder below functions/."
  type        = string
}

variable "size" {
  description = "Memory in MB (CPU comes with it), timeout in seconds, disk in MB."
  type        = object({ memory = number, timeout = number, disk = optional(number, 512) })
}

variable "concurrency" {
  description = "Calls at once, taken from the account's quota; null for no bound of its own."
  type        = number
  default     = null
}

variable "environment" {
  description = "Environment variables of the function, beside those that every function has."
  type        = map(string)
  default     = {}
}

variable "policies" {
  description = "By name, the paths of what the function may do. Each is a template of JSON."
  type        = map(string)

  validation {
    condition     = alltrue([for path in values(var.policies) : fileexists(path)])
    error_message = "Missing, and what the function may do: ${join(", ", [for path in values(var.policies) : replace(path, "/^[.]\\//", "infra/") if !fileexists(path)])}."
  }
}

variable "policy_variables" {
  description = "What the policies' templates may name, strings or lists. The module adds log_group."
  type        = any
}

variable "vpc" {
  description = "Subnets and security groups; null for a function that needs no private network."
  type        = object({ subnet_ids = list(string), security_group_ids = list(string) })
  default     = null
}

variable "retry_seconds" {
  description = "How long it takes at most until a call that failed is made again, by a queue or by the next schedule; null for a step of a workflow, which is tried seven times within minutes."
  type        = number
  default     = null
}

variable "schedule" {
  description = "When EventBridge Scheduler calls it, and with which input; null for never."
  type        = object({ expression = string, timezone = string, enabled = bool, input = string })
  default     = null
}
