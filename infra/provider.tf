# One root for AWS and for the local cloud. With an endpoint every service is asked there.
# skip_requesting_account_id stays unset: names and ARNs carry the account id.
provider "aws" {
  region                      = var.region
  s3_use_path_style           = var.local
  skip_credentials_validation = var.local
  skip_metadata_api_check     = var.local

  dynamic "endpoints" {
    for_each = var.endpoint[*]
    content {
      athena         = endpoints.value
      cloudwatch     = endpoints.value
      dynamodb       = endpoints.value
      events         = endpoints.value
      glue           = endpoints.value
      iam            = endpoints.value
      kms            = endpoints.value
      lambda         = endpoints.value
      logs           = endpoints.value
      s3             = endpoints.value
      scheduler      = endpoints.value
      secretsmanager = endpoints.value
      ses            = endpoints.value
      sfn            = endpoints.value
      sns            = endpoints.value
      sqs            = endpoints.value
      ssm            = endpoints.value
      sts            = endpoints.value
    }
  }

  default_tags {
    tags = { Project = var.prefix }
  }
}
