output "functions" {
  value = { for name, function in aws_lambda_function.function : name => {
    arn     = function.arn
    name    = function.function_name
    timeout = function.timeout
  } }
}

output "signing" {
  value = keys(aws_iam_role_policy.source)
}
