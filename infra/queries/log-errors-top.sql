SELECT service, fingerprint, min(category) AS category, min(exception) AS exception, min(message) AS message,
  count(*) AS errors, count(DISTINCT object) AS objects, min(time) AS first_seen, max(time) AS last_seen
FROM log_errors
WHERE "date" >= cast(current_date - INTERVAL '7' DAY AS varchar)
GROUP BY service, fingerprint
ORDER BY errors DESC
LIMIT 100
