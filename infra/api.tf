# The REST API, where messages are read from it: its secret, and what the two functions that read the source need for
# it.

resource "aws_secretsmanager_secret" "api" {
  count       = local.reads_api && var.api_secret_arn == null ? 1 : 0
  name        = "${var.prefix}-api"
  description = "The token of the messages' API, or the client that fetches one. Its value is put in by hand or by rotation, never by Terraform."

  recovery_window_in_days = var.protected ? 30 : 0
}

locals {
  reads_api      = var.message_source != "opensearch"
  api_secret_arn = local.reads_api ? coalesce(var.api_secret_arn, one(aws_secretsmanager_secret.api[*].arn)) : null

  api_environment = merge({ ALERT_ARCHIVE_MESSAGE_SOURCE = var.message_source }, local.reads_api ? {
    ALERT_ARCHIVE_API_URL                 = var.api_url
    ALERT_ARCHIVE_API_PAGE_SIZE           = tostring(var.api_page_size)
    ALERT_ARCHIVE_API_REQUESTS_PER_SECOND = tostring(var.api_requests_per_second)
    ALERT_ARCHIVE_API_SECRET_ID           = local.api_secret_arn
  } : {})
}

output "api_environment" {
  description = "What `make env` prints for the API; empty where it is not read."
  value = local.reads_api ? {
    ALERT_ARCHIVE_API_URL       = var.api_url
    ALERT_ARCHIVE_API_SECRET_ID = local.api_secret_arn
  } : {}
}
