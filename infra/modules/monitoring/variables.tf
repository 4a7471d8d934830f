variable "deployment" {
  description = "What the alarms and the rules of a deployment share."
  type = object({
    prefix          = string
    region          = string
    account         = string
    partition       = string
    schedule_group  = string
    alarm_topic_arn = string
    undelivered_arn = string
  })
}

variable "alarm_mails" {
  description = "Addresses that are told of each alarm."
  type        = list(string)
}

variable "workflows" {
  description = "State machines by name, with the functions that they call. when_dead is the state machine that is started with the event of an execution that ended badly."
  type = map(object({
    arn       = string
    functions = map(object({ arn = string, name = string, timeout = number }))
    when_dead = optional(string)
  }))
}
