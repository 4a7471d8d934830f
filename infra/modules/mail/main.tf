# Who may send the reports, and to whom.

variable "deployment" {
  type = object({ region = string, account = string, partition = string, local = bool })
}

variable "mail_from" {
  type = string
}

variable "mail_to" {
  type = list(string)
}

variable "identity" {
  description = "An identity that exists and covers mail_from, a domain or an address; null to create one for the address."
  type        = string
}

locals {
  identities = "arn:${var.deployment.partition}:ses:${var.deployment.region}:${var.deployment.account}:identity"
  sender     = coalesce(var.identity, var.mail_from)
  # In the sandbox SES also asks for rights on the recipients' identities, be they addresses or domains.
  recipients = flatten([for address in var.mail_to : [address, split("@", address)[1]]])
}

resource "aws_ses_email_identity" "sender" {
  count = var.identity == null ? 1 : 0
  email = var.mail_from
}

# For the Resource of ses:SendRawEmail; a condition on ses:FromAddress keeps it to one sender. The local cloud checks
# the sending of mail against no resource at all, so nothing narrower would match there.
output "identity_arns" {
  value = var.deployment.local ? ["*"] : [for name in distinct(concat([local.sender], local.recipients)) : "${local.identities}/${name}"]
}
