output "topic_arn" {
  description = "The SNS topic that every alarm goes to."
  value       = aws_sns_topic.alarms.arn
}
