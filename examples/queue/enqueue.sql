-- In the transaction in which the customer is made: a rollback takes both back.
SELECT jobmanager.enqueue('send-welcome', '{"to": 4711}', key => 'customer-4711');
SELECT jobmanager.enqueue('send-welcome', '{"to": 4711}', key => 'customer-4711');  -- the same run
SELECT jobmanager.enqueue('send-welcome', '{"to": 4711}', priority => 5);           -- another one, that sends nothing
