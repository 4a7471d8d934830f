output "bucket" {
  value = module.source.bucket
}

output "bucket_arn" {
  value = module.source.arn
}

output "queue_url" {
  value = aws_sqs_queue.events.url
}

# Known before the queues exist: the policies of functions and roles name them.
output "queue_arn" {
  value = local.queue_arn
}

output "dlq_url" {
  value = aws_sqs_queue.dead.url
}

output "dlq_arn" {
  value = local.dlq_arn
}
