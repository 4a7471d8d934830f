# A private bucket: encrypted, its owner's alone, and on AWS deaf to plain http.

locals {
  # From the name and not from the resource, so that a plan shows every policy whole before anything exists.
  arn = "arn:${var.deployment.partition}:s3:::${var.name}"
}

resource "aws_s3_bucket" "bucket" {
  bucket        = var.name
  force_destroy = !var.protected
}

resource "aws_s3_bucket_public_access_block" "bucket" {
  bucket                  = aws_s3_bucket.bucket.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "bucket" {
  bucket = aws_s3_bucket.bucket.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "bucket" {
  bucket = aws_s3_bucket.bucket.id

  rule {
    bucket_key_enabled = var.kms_key_arn == null ? null : true

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_versioning" "bucket" {
  bucket = aws_s3_bucket.bucket.id

  versioning_configuration {
    status = var.versioning ? "Enabled" : "Disabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "bucket" {
  bucket = aws_s3_bucket_versioning.bucket.bucket

  dynamic "rule" {
    for_each = var.lifecycle_rules

    content {
      id     = rule.key
      status = "Enabled"

      filter {
        prefix = rule.value.prefix
      }

      dynamic "expiration" {
        for_each = rule.value.expiration_days[*]

        content {
          days = expiration.value
        }
      }

      dynamic "noncurrent_version_expiration" {
        for_each = rule.value.noncurrent_expiration_days[*]

        content {
          noncurrent_days = noncurrent_version_expiration.value
        }
      }

      dynamic "transition" {
        for_each = rule.value.transition_days[*]

        content {
          days          = transition.value
          storage_class = rule.value.transition_class
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

# The local cloud speaks http.
resource "aws_s3_bucket_policy" "tls" {
  count  = var.deployment.local ? 0 : 1
  bucket = aws_s3_bucket_public_access_block.bucket.bucket

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "RefusePlainHttp"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [local.arn, "${local.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}

resource "aws_iam_role" "replication" {
  count = var.replication == null ? 0 : 1
  name  = "${var.name}-replication"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Replication"
      Effect    = "Allow"
      Principal = { Service = "s3.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = var.deployment.account } }
    }]
  })
}

resource "aws_iam_role_policy" "replication" {
  count = var.replication == null ? 0 : 1
  name  = "replication"
  role  = aws_iam_role.replication[0].id

  policy = templatefile("${path.module}/replication.json", {
    source      = local.arn
    destination = var.replication.bucket_arn
    source_key  = var.kms_key_arn
    replica_key = var.replication.kms_key_arn
  })
}

resource "aws_s3_bucket_replication_configuration" "bucket" {
  count  = var.replication == null ? 0 : 1
  bucket = aws_s3_bucket_versioning.bucket.bucket
  role   = aws_iam_role.replication[0].arn

  rule {
    id     = "everything"
    status = "Enabled"

    filter {}

    delete_marker_replication {
      status = "Disabled"
    }

    # Without it S3 passes over objects under a key, and says nothing.
    dynamic "source_selection_criteria" {
      for_each = var.kms_key_arn[*]

      content {
        sse_kms_encrypted_objects {
          status = "Enabled"
        }
      }
    }

    destination {
      bucket        = var.replication.bucket_arn
      storage_class = var.replication.storage_class

      dynamic "encryption_configuration" {
        for_each = var.replication.kms_key_arn[*]

        content {
          replica_kms_key_id = encryption_configuration.value
        }
      }
    }
  }
}
