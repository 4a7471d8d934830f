SELECT "date", service, category, count(*) AS errors, count(DISTINCT fingerprint) AS kinds
FROM log_errors
WHERE "date" >= cast(current_date - INTERVAL '30' DAY AS varchar)
GROUP BY "date", service, category
ORDER BY "date", errors DESC
