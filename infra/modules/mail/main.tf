# The sender of the summary.

variable "mail_from" {
  type = string
}

variable "create_identity" {
  type = bool
}

variable "identity_prefix" {
  type = string
}

resource "aws_ses_email_identity" "sender" {
  count = var.create_identity ? 1 : 0
  email = var.mail_from
}

# An identity made elsewhere is usually the domain's.
output "identity_arn" {
  value = var.create_identity ? aws_ses_email_identity.sender[0].arn : "${var.identity_prefix}/${split("@", var.mail_from)[1]}"
}
