# Who may send the reports, and to whom.

variable "deployment" {
  description = "Prefix of names, region, account and partition, and whether this is the local cloud."
  type        = object({ prefix = string, region = string, account = string, partition = string, local = bool })
}

variable "mail_from" {
  description = "Sender of the mails: an address, with or without a name."
  type        = string
}

variable "mail_to" {
  description = "Recipients by kind of report."
  type        = map(list(string))
}

variable "identity" {
  description = "An identity that exists and covers mail_from, a domain or an address; null to create one for the address."
  type        = string
}

locals {
  identities = "arn:${var.deployment.partition}:ses:${var.deployment.region}:${var.deployment.account}:identity"
  sender     = coalesce(var.identity, var.mail_from)
  # Without the names that may stand beside them, as in `Night shift <night@example.com>`.
  addresses = [for address in flatten(values(var.mail_to)) : regex("[^<>\\s]+@[^<>\\s]+", address)]
  # In the sandbox SES also asks for rights on the recipients' identities, be they addresses or domains.
  recipients = flatten([for address in local.addresses : [address, split("@", address)[1]]])
}

resource "aws_ses_email_identity" "sender" {
  count = var.identity == null ? 1 : 0
  email = var.mail_from
}

# One list a kind of report, read for each mail. What operators change in Parameter Store stays: Terraform writes a list once.
resource "aws_ssm_parameter" "recipients" {
  for_each    = var.mail_to
  name        = "/${var.deployment.prefix}/mail/${each.key}"
  description = "Who gets this kind of report: addresses with commas between them."
  type        = "StringList"
  value       = join(",", each.value)

  lifecycle {
    ignore_changes = [value]
  }
}

# From names, so that a plan shows each policy whole.
output "recipients" {
  description = "By kind of report, the parameter with its recipients: name and ARN."
  value = { for kind in keys(var.mail_to) : kind => {
    name = "/${var.deployment.prefix}/mail/${kind}"
    arn  = "arn:${var.deployment.partition}:ssm:${var.deployment.region}:${var.deployment.account}:parameter/${var.deployment.prefix}/mail/${kind}"
  } }
}

# For the Resource of ses:SendRawEmail; a condition on ses:FromAddress keeps it to one sender. The local cloud checks
# the sending of mail against no resource at all, so nothing narrower would match there.
output "identity_arns" {
  description = "SES identities that a policy for sending names."
  value       = var.deployment.local ? ["*"] : [for name in distinct(concat([local.sender], local.recipients)) : "${local.identities}/${name}"]
}
