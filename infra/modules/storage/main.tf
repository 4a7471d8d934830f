# Where everything stays that must outlive a run: the bucket and the three tables.

resource "aws_s3_bucket" "archive" {
  bucket        = var.bucket
  force_destroy = !var.protected
}

resource "aws_s3_bucket_public_access_block" "archive" {
  bucket                  = aws_s3_bucket.archive.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "archive" {
  bucket = aws_s3_bucket.archive.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# Replacing a row rewrites its object: versions are the way back.
resource "aws_s3_bucket_versioning" "archive" {
  bucket = aws_s3_bucket.archive.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "archive" {
  bucket = aws_s3_bucket_versioning.archive.bucket

  rule {
    id     = "spool"
    status = "Enabled"

    filter {
      prefix = "spool/"
    }

    expiration {
      days = var.spool_retention_days
    }

    # The spool holds copies: its replaced objects are worth nothing.
    noncurrent_version_expiration {
      noncurrent_days = 1
    }
  }

  dynamic "rule" {
    for_each = toset(["archive/", "dashboard/", "packages/", "quarantine/", "runs/"])

    content {
      id     = "replaced-${trimsuffix(rule.value, "/")}"
      status = "Enabled"

      filter {
        prefix = rule.value
      }

      noncurrent_version_expiration {
        noncurrent_days = var.noncurrent_retention_days
      }

      dynamic "transition" {
        for_each = rule.value == "archive/" && var.archive_transition_days != null ? [var.archive_transition_days] : []

        content {
          days          = transition.value
          storage_class = "GLACIER_IR"
        }
      }
    }
  }

  rule {
    id     = "abandoned-uploads"
    status = "Enabled"

    filter {
      prefix = ""
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }

    expiration {
      expired_object_delete_marker = true
    }
  }
}

data "aws_iam_policy_document" "tls" {
  statement {
    sid       = "RefusePlainHttp"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.archive.arn, "${aws_s3_bucket.archive.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

# The local cloud speaks http.
resource "aws_s3_bucket_policy" "archive" {
  count  = var.require_tls ? 1 : 0
  bucket = aws_s3_bucket_public_access_block.archive.bucket
  policy = data.aws_iam_policy_document.tls.json
}

resource "aws_dynamodb_table" "job_runs" {
  name                        = "${var.prefix}-job-runs"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "run_id"
  deletion_protection_enabled = var.protected

  attribute {
    name = "run_id"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled = true
  }
}

resource "aws_dynamodb_table" "windows" {
  name                        = "${var.prefix}-windows"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "run_id"
  range_key                   = "window_id"
  deletion_protection_enabled = var.protected

  attribute {
    name = "run_id"
    type = "S"
  }

  attribute {
    name = "window_id"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled = true
  }
}

resource "aws_dynamodb_table" "message_tracking" {
  name                        = "${var.prefix}-message-tracking"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "message_id"
  range_key                   = "source_index"
  deletion_protection_enabled = var.protected

  attribute {
    name = "message_id"
    type = "S"
  }

  attribute {
    name = "source_index"
    type = "S"
  }

  attribute {
    name = "staging"
    type = "S"
  }

  attribute {
    name = "timestamp"
    type = "S"
  }

  # Sparse: only open and unfinished rows carry `staging`, so it stays small beside millions of archived ones.
  global_secondary_index {
    name            = "staging"
    hash_key        = "staging"
    range_key       = "timestamp"
    projection_type = "ALL"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled = true
  }
}
