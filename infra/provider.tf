# One root for AWS and for the local cloud: with an endpoint every service is asked there.
# skip_requesting_account_id stays unset: names and ARNs carry the account id.
provider "aws" {
  region                      = var.region
  s3_use_path_style           = local.elsewhere
  skip_credentials_validation = local.elsewhere
  skip_metadata_api_check     = local.elsewhere

  dynamic "endpoints" {
    for_each = local.elsewhere ? [var.endpoint] : []
    content {
      cloudwatch = endpoints.value
      dynamodb   = endpoints.value
      events     = endpoints.value
      iam        = endpoints.value
      lambda     = endpoints.value
      logs       = endpoints.value
      s3         = endpoints.value
      scheduler  = endpoints.value
      ses        = endpoints.value
      sfn        = endpoints.value
      sns        = endpoints.value
      sts        = endpoints.value
    }
  }

  default_tags {
    tags = { Project = var.prefix }
  }
}

locals {
  elsewhere = var.endpoint != null
}
