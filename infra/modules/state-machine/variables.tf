variable "deployment" {
  description = "What the parts of a deployment share."
  type = object({
    prefix             = string
    region             = string
    account            = string
    partition          = string
    log_retention_days = number
    schedule_group     = string
    undelivered_arn    = string
  })
}

variable "name" {
  description = "Without the deployment's prefix."
  type        = string
}

variable "definition" {
  description = "Path of the definition: JSON in which variables stand in strings."
  type        = string
}

variable "functions" {
  description = "Functions that it calls, by name: `plan-windows` is $${PlanWindowsArn} in the definition."
  type        = map(object({ arn = string, name = string, timeout = number }))
  default     = {}
}

variable "substitutions" {
  description = "Further variables of the definition."
  type        = map(string)
  default     = {}
}

variable "max_concurrency" {
  description = "Replaces the MaxConcurrency of the definition's maps; null to leave it as written."
  type        = number
  default     = null
}

variable "policy" {
  description = "Path of what it may do besides calling its functions, running its maps and writing its log; null for nothing."
  type        = string
  default     = null
}

variable "policy_variables" {
  description = "What the policy names beside the functions."
  type        = any
  default     = {}
}

variable "schedule" {
  description = "When EventBridge Scheduler starts it, and with which input; null for never."
  type        = object({ expression = string, timezone = string, enabled = bool, input = string })
  default     = null
}
