output "bucket" {
  description = "Name of the source bucket."
  value       = module.source.bucket
}

output "bucket_arn" {
  description = "ARN of the source bucket."
  value       = module.source.arn
}

output "queue_url" {
  description = "The queue of the events."
  value       = aws_sqs_queue.events.url
}

# Known before the queues exist: the policies of functions and roles name them.
output "queue_arn" {
  description = "ARN of the queue of the events."
  value       = local.queue_arn
}

output "dlq_url" {
  description = "The queue of the messages that failed too often."
  value       = aws_sqs_queue.dead.url
}

output "dlq_arn" {
  description = "ARN of the queue of the messages that failed too often."
  value       = local.dlq_arn
}
